"""Writes the embedded data sets: ``python -m experiments.data.embedded --out DIR``."""

from __future__ import annotations

from pathlib import Path

import cv2
import tyro

from experiments.data.embedded import sheet
from experiments.data.embedded.scenarios import SCENARIOS, write_scenario


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
    for scenario in scenarios:
        folder = write_scenario(scenario, out, image_size=image_size, workers=workers)
        print(folder)
    if contact_sheet is not None:
        examples = sheet.contact_sheet(scenarios, size=image_size)
        cv2.imwrite(str(contact_sheet), examples[..., ::-1])


if __name__ == "__main__":
    tyro.cli(main)
