"""Writes the embedded data sets: ``python -m experiments.data.embedded --out DIR``."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import tyro

from experiments.console import set_up_console
from experiments.data.embedded import sheet
from experiments.data.embedded.scenarios import SCENARIOS, write_scenario
from experiments.outputs import check_file, check_folder
from experiments.storage import write_atomically


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
        folder = write_scenario(scenario, out, image_size=image_size, workers=workers)
        print(folder)
    if contact_sheet is not None:
        examples = sheet.contact_sheet(scenarios, size=image_size)
        _, encoded = cv2.imencode(contact_sheet.suffix or ".png", examples[..., ::-1])
        # Not imwrite, which says nothing of a file it could not write.
        write_atomically(contact_sheet, lambda file: file.write(encoded.tobytes()))


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (OSError, ValueError) as problem:
        sys.exit(f"error: {problem}")
