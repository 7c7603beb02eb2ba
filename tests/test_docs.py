"""What README and docs/ say can be followed: links, examples, the reference made of docstrings."""

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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_are_python(page):
    for example in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S):
        compile(example, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_programs_that_are_there(page):
    text = page.read_text()
    scripts = re.findall(r"python (experiments/\w+\.py)", text)
    modules = re.findall(r"python -m ((?:experiments|benchmarks)[\w.]*)", text)
    files = [ROOT / script for script in scripts]
    for module in modules:
        path = ROOT / module.rstrip(".").replace(".", "/")
        files.append(path / "__main__.py" if path.is_dir() else path.with_suffix(".py"))
    assert [file for file in files if not file.exists()] == []


def test_the_reference_has_every_public_name(tmp_path):
    pytest.importorskip("pdoc")
    command = [sys.executable, "-m", "pdoc", "lca_fused", "-d", "google", "-o", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    page = (tmp_path / "lca_fused.html").read_text()
    assert [name for name in lca_fused.__all__ if f'id="{name}"' not in page] == []
