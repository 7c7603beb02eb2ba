"""A contact sheet: what the products of the scenarios look like, siblings side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.data.embedded.catalogue import catalogue
from experiments.data.embedded.design import Design
from experiments.data.embedded.lettering import write
from experiments.data.embedded.pen import Image, Pen, blank
from experiments.data.embedded.photos import packshot
from experiments.data.embedded.scenarios import SCENARIOS, Scenario, render_image

_PAPER = (250, 249, 246)
_INK = (60, 60, 66)


def contact_sheet(
    scenarios: Sequence[str] = tuple(SCENARIOS),
    *,
    families: int = 6,
    photos: int = 4,
    size: int = 112,
) -> Image:
    """A row for each family: for two of its members a packshot and the first test photos.

    Args:
        scenarios: keys of `SCENARIOS`, one below the other.
        families: how many of each scenario are shown at most.
        photos: store photos of each product.
        size: side of a photo in pixels.

    Returns:
        RGB uint8 [H, W, 3].

    Raises:
        KeyError: there is no such scenario.
    """
    rows = [
        np.hstack([_strip(SCENARIOS[name], design, photos, size) for design in siblings])
        for name in scenarios
        for siblings in _pairs(SCENARIOS[name])[:families]
    ]
    return np.vstack(rows)


def _pairs(scenario: Scenario) -> list[list[Design]]:
    """The first two members of each family."""
    members: dict[str, list[Design]] = {}
    for design in catalogue(scenario.assortment):
        members.setdefault(design.family.brand, []).append(design)
    return [siblings[:2] for siblings in members.values()]


def _strip(scenario: Scenario, design: Design, photos: int, size: int) -> Image:
    shots = [packshot(design, np.random.default_rng(design.key), size)]
    shots += [render_image(scenario, design, "test", index, size) for index in range(photos)]
    pictures = np.hstack(shots)
    caption = blank(max(10, size // 6), pictures.shape[1], _PAPER)
    pen = Pen(caption, caption.shape[0])
    middle = 0.5 * caption.shape[1] / caption.shape[0]
    write(pen, design.name, middle, 0.5, 0.45, _INK, weight=0.15, max_width=1.9 * middle)
    strip = np.vstack([caption, pictures])
    return np.asarray(np.pad(strip, ((0, 0), (0, 8), (0, 0)), constant_values=_PAPER[0]), np.uint8)
