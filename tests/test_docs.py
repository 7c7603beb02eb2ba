"""What README and docs/ say can be followed: links, the reference made of docstrings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lca_fused

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "-d", folder], check=True, cwd=ROOT)
    return folder


def test_the_reference_has_every_public_name(site):
    page = (site / "api.html").read_text()
    missing = [n for n in lca_fused.__all__ if not re.search(rf'id="lca_fused(\.\w+)?\.{n}"', page)]
    assert missing == []


def test_pages_of_the_site_fetch_nothing_from_elsewhere(site):
    pages = list(site.glob("*.html"))
    assert {page.stem for page in PAGES if page.parent == ROOT / "docs"} < {p.stem for p in pages}
    fetched = [
        re.findall(r'<(?:script|link|img)[^>]*="(?:https?:)?//', p.read_text()) for p in pages
    ]
    assert [tags for tags in fetched if tags] == []


def test_the_site_shows_the_pictures_that_pages_take_from_beside_results(site):
    shown = {
        site / source
        for page in site.glob("*.html")
        for source in re.findall(r'<img[^>]*src="([^"]+)"', page.read_text())
    }
    assert any("results" in picture.parts for picture in shown)
    assert [picture for picture in shown if not picture.is_file()] == []


def test_the_site_holds_no_code_of_ours(site):
    assert [path for path in site.rglob("*.py*") if path.suffix in (".py", ".pyc")] == []
