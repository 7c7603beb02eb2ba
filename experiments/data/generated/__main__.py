"""Writes the generated data sets: ``python -m experiments.data.generated --out DIR``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import tyro
from PIL import Image, ImageDraw

from experiments.console import set_up_console
from experiments.data.generated.catalogue import Design, catalogue
from experiments.data.generated.drawing import font
from experiments.data.generated.scenarios import SCENARIOS, write_scenario
from experiments.outputs import check_file, check_folder
from experiments.storage import write_atomically

_FAMILIES = 6  # of a scenario that a contact sheet shows at most
_TESTED = 4  # test photos of a product


def main(
    out: Path,
    scenarios: tuple[str, ...] = tuple(SCENARIOS),
    image_size: int = 112,
    workers: int | None = None,
    contact_sheet: Path | None = None,
) -> None:
    """Renders product photos to disk.

    Args:
        out: folder that gets a folder for each scenario.
        scenarios: names of the scenarios.
        image_size: side of the square photos in pixels.
        workers: number of rendering processes; by default one per core, 8 at most.
        contact_sheet: image file to draw examples of the scenarios into.
    """
    set_up_console()
    check_folder(out, "--out")
    if contact_sheet is not None:
        check_file(contact_sheet, "--contact-sheet")
    for scenario in scenarios:
        print(write_scenario(scenario, out, image_size=image_size, workers=workers))
    if contact_sheet is not None:
        save = partial(draw_sheet(out, scenarios).save, format=contact_sheet.suffix[1:] or "png")
        write_atomically(contact_sheet, save)


def draw_sheet(root: Path, scenarios: Sequence[str]) -> Image.Image:
    """Return two members of a family beside each other, family below family.

    Of each member there are the first training photo and the first test photos.

    Args:
        root: folder that `write_scenario` wrote the scenarios to.
        scenarios: keys of `SCENARIOS`, one below the other.
    """
    strips = []
    for name in scenarios:
        families = groupby(catalogue(SCENARIOS[name].assortment), lambda design: design.brand)
        for _, members in islice(families, _FAMILIES):
            strips += [_strip(root / name, member) for member in islice(members, 2)]
    width, height = strips[0].size
    sheet = Image.new("RGB", (2 * width, len(strips) // 2 * height))
    for place, strip in enumerate(strips):
        sheet.paste(strip, (place % 2 * width, place // 2 * height))
    return sheet


def _strip(folder: Path, design: Design) -> Image.Image:
    train, test = (sorted((folder / part / design.slug).iterdir()) for part in ("train", "test"))
    photos = [Image.open(file) for file in (train[0], *test[:_TESTED])]
    size = photos[0].width
    strip = Image.new("RGB", (len(photos) * size + 8, size + size // 6), "white")
    ImageDraw.Draw(strip).text((4, 2), design.name, "dimgray", font("Sans", size // 9))
    for place, photo in enumerate(photos):
        strip.paste(photo, (place * size, size // 6))
    return strip


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (OSError, ValueError) as problem:
        sys.exit(f"error: {problem}")
