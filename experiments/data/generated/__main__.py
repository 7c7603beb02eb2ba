"""Writes the generated data sets: ``python -m experiments.data.generated --out DIR``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path

import cv2
import numpy as np
import tyro

from experiments.console import set_up_console
from experiments.data.generated.camera import Pixels
from experiments.data.generated.catalogue import Design, catalogue
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
        scenarios: which ones.
        image_size: side of the square photos in pixels.
        workers: rendering processes; by default one for each processor.
        contact_sheet: also draw examples of the scenarios into this image file.
    """
    set_up_console()
    check_folder(out, "--out")
    if contact_sheet is not None:
        check_file(contact_sheet, "--contact-sheet")
    for scenario in scenarios:
        print(write_scenario(scenario, out, image_size=image_size, workers=workers))
    if contact_sheet is not None:
        _, encoded = cv2.imencode(contact_sheet.suffix or ".png", draw_sheet(out, scenarios))
        # Not imwrite, which says nothing of a file it could not write.
        write_atomically(contact_sheet, lambda file: file.write(encoded.tobytes()))


def draw_sheet(root: Path, scenarios: Sequence[str]) -> Pixels:
    """Return two members of a family beside each other, family below family.

    Of each member there are the first training photo and the first test photos.

    Args:
        root: folder that `write_scenario` wrote the scenarios to.
        scenarios: keys of `SCENARIOS`, one below the other.

    Returns:
        BGR uint8 [H, W, 3].
    """
    rows = []
    for name in scenarios:
        families = groupby(catalogue(SCENARIOS[name].assortment), lambda design: design.brand)
        for _, members in islice(families, _FAMILIES):
            rows.append(np.hstack([_strip(root / name, one) for one in islice(members, 2)]))
    return np.vstack(rows)


def _strip(folder: Path, design: Design) -> Pixels:
    trained, tested = (
        sorted((folder / part / design.slug).iterdir()) for part in ("train", "test")
    )
    shots = [np.asarray(cv2.imread(str(file))) for file in (trained[0], *tested[:_TESTED])]
    size = len(shots[0])
    caption = np.full((size // 6, size * len(shots), 3), 255, np.uint8)
    place, font = (size // 16, size // 8), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(caption, design.name, place, font, size / 280, (60, 60, 60), 1, cv2.LINE_AA)
    return np.pad(
        np.vstack([caption, np.hstack(shots)]), ((0, 0), (0, 8), (0, 0)), constant_values=255
    )


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (OSError, ValueError) as problem:
        sys.exit(f"error: {problem}")
