"""The plain ground that a packshot stands on: found by a flood fill from the photo's border."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

TOLERANCE = 6
"""Levels, of 255, that a channel of a ground may differ by from its colour."""

SIDE = 512
"""Pixels of the longer side that a ground is looked at with: in larger photos noise that a fill
would stop at is averaged out."""

# Of 31 packshots of packaged goods the border is the ground's colour for 0.79 or more, 0.04 or less
# in one stretch is nearly so, and the product fills 0.86 or more of its hull; of 964 training
# photos from stores no border is of one colour for more than 0.25.
_LEAST_BORDER = 0.6
_MOST_SHADE = 0.05
_NEARLY = 4  # times the tolerance
_PRODUCT = (0.03, 0.9)
_LEAST_HULL = 0.5

_SPECK = 3  # px, below which nothing is a product
_LEAST_ISLAND = 0.01  # of the largest part of the product

_Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Fill:
    """A flood fill of a photo's ground, in a copy of at most 512 px a side.

    Attributes:
        pixels: uint8 (h, w, 3), the copy.
        colour: of the ground.
        border: share of the border that has the colour of the ground.
        shade: length of the longest stretch of the border that nearly has it, over the border's.
    """

    pixels: NDArray[np.uint8]
    colour: NDArray[np.int16]
    border: float
    shade: float

    @cached_property
    def product(self) -> _Mask:
        """uint8 (h, w): 1 where the fill does not come to, else 0."""
        return _without_specks(_unfilled(self.pixels, self.colour.tolist()))

    @property
    def is_plain(self) -> bool:
        """Whether what is left is the product, by all signs.

        The ground is most of the border, light does not fall off across it, the product is a
        sensible share of the photo, and in one piece: a fill that leaks into a product of the
        ground's own colour leaves fragments.
        """
        least, most = _PRODUCT
        return (
            self.border >= _LEAST_BORDER
            and self.shade <= _MOST_SHADE
            and least <= self.product.mean() <= most
            and _share_of_hull(self.product) >= _LEAST_HULL
        )

    def mask(self, size: tuple[int, int]) -> Image.Image:
        """Return the product as alpha, mode "L", for the photo of this width and height."""
        return Image.fromarray(255 * self.product).resize(size, Image.Resampling.BILINEAR)


def fill_ground(photo: Image.Image) -> Fill:
    """Look at a border; the ground is filled, from all of it, when the product is asked for.

    What the product encloses of the ground's colour stays with it.

    Args:
        photo: mode "RGB", or "RGBA" of which the transparency is not looked at.
    """
    small = photo.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small)
    around = [pixels[0], pixels[1:, -1], pixels[-1, -2::-1], pixels[-2:0:-1, 0]]
    border = np.concatenate(around).astype(np.int16)
    colour = np.median(border, axis=0).astype(np.int16)
    apart = np.abs(border - colour).max(axis=1)
    alike = apart <= TOLERANCE
    nearly = ~alike & (apart <= _NEARLY * TOLERANCE)
    shade = _longest_stretch(nearly) / len(border)
    return Fill(pixels, colour, float(alike.mean()), shade)


def _unfilled(pixels: NDArray[np.uint8], colour: list[int]) -> _Mask:
    """Return where a fill that begins outside the photo, in `colour`, does not come to."""
    # A frame of the ground's colour joins what the product parts where it touches the border.
    framed = cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=colour)
    height, width = framed.shape[:2]
    filled = np.zeros((height + 2, width + 2), np.uint8)  # OpenCV asks for a frame of its own
    levels = (TOLERANCE,) * 3
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY
    cv2.floodFill(framed, filled, (0, 0), (), levels, levels, flags)
    return 1 - filled[2:-2, 2:-2]


def _without_specks(product: _Mask) -> _Mask:
    """Leave out dust and what compression adds: far from the product they would widen its box."""
    opened = cv2.morphologyEx(product, cv2.MORPH_OPEN, np.ones((_SPECK, _SPECK), np.uint8))
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(opened)
    areas = statistics[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # the ground
    kept = areas > _LEAST_ISLAND * areas.max()
    return kept[parts].astype(np.uint8)


def _share_of_hull(product: _Mask) -> float:
    """Return how much of its convex hull the product fills; there has to be one."""
    hull = np.zeros_like(product)
    cv2.fillConvexPoly(hull, cv2.convexHull(cv2.findNonZero(product)), 1)
    return float(product.sum() / hull.sum())


def _longest_stretch(around: NDArray[np.bool_]) -> int:
    """Return how many values in a row are true, where the first follows the last."""
    gaps = np.flatnonzero(~around)
    if not len(gaps):
        return len(around)
    return int(np.diff(gaps, append=gaps[0] + len(around)).max()) - 1
