"""The report in a real browser; skipped where there is no Chromium."""

import re
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.report.page import write_report
from tests.browser import BROWSER, DESKTOP, PHONE, command
from tests.products import write_photos
from tests.stored_runs import (
    labels_of_folder,
    result,
    settings,
    with_mistakes,
    write_cell,
    write_study,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH"),
]

DARK = "--blink-settings=preferredColorScheme=0"
# What sticks out of the page to the right, but for what is in a box that scrolls by itself.
MEASURE = """<script>
addEventListener("load", () => {
  const out = [...document.querySelectorAll("body *")].filter(e =>
    e.getBoundingClientRect().right > innerWidth + 1 && !e.parentElement.closest(".scroll"));
  const broken = [...document.images].filter(i => i.naturalWidth === 0);
  Object.assign(top.document.documentElement.dataset, {
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    out: out.map(e => e.outerHTML.slice(0, 80)).join("|"),
    broken: broken.length,
  });
});
</script></body>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    photos = write_photos(folder / "photos")
    run = write_study(folder / "run", photos)
    labels = labels_of_folder() * 3
    long_names = [f"{'A-very-long-name-' * 4}{k}" for k in range(40)]
    stored = result(labels, with_mistakes(labels, (0, 30), (1, 31), (2, 39)), settings("gap"))
    stored["settings"]["dataset"] = "folder/of-products-with-long-names"
    write_cell(run, stored | {"classes": long_names, "trained_on": [1] * 40})
    return write_report(run)


def browse(profile: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    always = [*command(profile / "profile"), "--virtual-time-budget=5000"]
    return subprocess.run(
        [*always, *options, page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )


def complaints(finished: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page, not the browser about this machine, reported."""
    return re.findall(r"^.*CONSOLE.*$", finished.stderr, re.MULTILINE)


def measured(profile: Path, html: str, width: int) -> dict[str, str]:
    """Measure a page in a frame: a window cannot be made as narrow as a phone."""
    content = escape(html.replace("</body>", MEASURE))
    frame = f'<iframe srcdoc="{content}" style="width: {width}px; height: 900px; border: 0">'
    page = profile / "measured.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{frame}</iframe>", encoding="utf-8")
    finished = browse(profile, page, "--dump-dom")
    assert complaints(finished) == []
    root = re.search(r"<html[^>]*>", finished.stdout)
    assert root is not None
    return dict(re.findall(r'data-(\w+)="([^"]*)"', root.group()))


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_page_is_no_wider_than_the_screen_and_all_pictures_show(report, tmp_path, width):
    found = measured(tmp_path, report.read_text(encoding="utf-8"), width)
    assert int(found["width"]) == width
    assert found["out"] == ""
    assert int(found["page"]) <= width
    assert found["broken"] == "0"


def test_the_measure_sees_what_sticks_out_and_what_is_broken(tmp_path):
    html = '<html><body><p style="width: 700px">wide</p><img src="data:image/png;base64,AA"></body>'
    found = measured(tmp_path, html, PHONE)
    assert "wide" in found["out"]
    assert int(found["page"]) >= 700
    assert found["broken"] == "1"


def test_an_error_on_the_page_would_be_seen(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<script>missing()</script>")
    assert "missing is not defined" in complaints(browse(tmp_path, page, "--dump-dom"))[0]


@pytest.mark.parametrize(("option", "dark"), [("--disable-extensions", False), (DARK, True)])
def test_page_and_charts_follow_the_reader_into_dark_mode(report, tmp_path, option, dark):
    picture = tmp_path / "page.png"
    finished = browse(
        tmp_path, report, option, f"--screenshot={picture}", f"--window-size={DESKTOP},1200"
    )
    assert complaints(finished) == []
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape == (1200, DESKTOP)
    background = np.median(pixels)
    assert background < 60 if dark else background > 200
    assert np.abs(pixels.astype(int) - background).max() > 150, "text stands out"
