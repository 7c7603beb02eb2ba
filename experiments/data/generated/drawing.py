"""A canvas for shapes, words and symbols in unit lengths instead of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.data.dataset import DataError

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (30, 30, 34)

_CAPITALS = 0.729  # height of DejaVu's capitals, in font sizes


def rgb(code: str) -> Colour:
    """Return red, green and blue in [0, 255] of a colour code such as "F3E9DA"."""
    return int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16)


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """Return `colour` with a `share` in [0, 1] of it replaced by `other`."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float) -> Colour:
    """Return `colour` moved towards black by `share`."""
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float) -> Colour:
    """Return `colour` moved towards white by `share`."""
    return mix(colour, WHITE, share)


def legible(background: Colour, colours: Sequence[Colour]) -> Colour:
    """Return the first of the colours that stands out from the background; else white or black."""
    apart = (c for c in colours if abs(_luminance(c) - _luminance(background)) > 0.42)
    return next(apart, BLACK if _luminance(background) > 0.5 else WHITE)


def _luminance(colour: Colour) -> float:
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


@cache
def font(style: str, size: int) -> ImageFont.FreeTypeFont:
    """Return one of the DejaVu fonts that matplotlib brings, e.g. "Sans-Bold", `size` pixels an em.

    Raises:
        DataError: matplotlib was installed without it.
    """
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVu{style}.ttf"
    if not file.is_file():  # Pillow would take one of that name from elsewhere
        raise DataError(
            f"no font {file}, which generated products are drawn with; it comes with matplotlib: "
            "`pip install --force-reinstall matplotlib`"
        )
    # The other layout engine is not installed everywhere.
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


class Canvas:
    """Draws on an RGB picture in place.

    Args:
        picture: picture to draw on.
        unit: number of pixels in one unit of x, which goes right.
        left: x of the picture's left edge.
        tall: number of units of x in one unit of y, which goes down from 0.
        size: number of units of x in one unit of width, height and radius.

    Attributes:
        step: number of units of y in one unit of height.
    """

    def __init__(
        self, picture: Image.Image, unit: float, left: float = 0, tall: float = 1, size: float = 1
    ) -> None:
        self.picture = picture
        self.step = size / tall
        self._left = left
        self._units = unit, tall * unit
        self._unit = size * unit
        self._draw = ImageDraw.Draw(picture)

    def box(
        self, x: float, y: float, wide: float, high: float, colour: Colour, radius: float = 0.0
    ) -> None:
        """Fill a rectangle around (x, y) with corners of a radius."""
        self._draw.rounded_rectangle(self._edges(x, y, wide, high), radius * self._unit, colour)

    def oval(self, x: float, y: float, wide: float, high: float, colour: Colour) -> None:
        """Fill an ellipse around (x, y)."""
        self._draw.ellipse(self._edges(x, y, wide, high), colour)

    def discs(self, x: float, y: float, radius: float, *colours: Colour) -> None:
        """Fill circles around (x, y), each a little smaller than the one before it."""
        for number, colour in enumerate(colours):
            wide = 2 * radius * (1 - 0.1 * number)
            self.oval(x, y, wide, wide, colour)

    def text(
        self,
        text: str,
        x: float,
        y: float,
        height: float,
        colours: Sequence[Colour],
        *,
        style: str = "Sans-Bold",
        room: float = 10.0,
    ) -> None:
        """Write capitals around (x, y), `height` high or as much smaller as fits into `room`.

        They have the first of the colours that stands out from what is at (x, y).
        """
        text = text.upper()
        size = height / _CAPITALS * self._unit
        size *= min(1.0, room * self._unit / font(style, 100).getlength(text) * 100 / size)
        px, py = self._pixels(x, y)
        inside = np.clip((px, py), 0, np.subtract(self.picture.size, 1)).astype(int).tolist()
        red, green, blue = np.asarray(self.picture.getpixel(tuple(inside))).tolist()
        behind = red, green, blue
        self._draw.text(
            (px, py + _CAPITALS * size / 2), text, legible(behind, colours),
            font(style, max(1, round(size))), "ms", stroke_width=round(0.09 * size),
            stroke_fill=behind,
        )  # fmt: skip

    def symbol(self, char: str, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a character of DejaVu Sans as large as fits into a square around (x, y)."""
        left, top, right, bottom = font("Sans", 100).getbbox(char)
        scale = 2 * radius * self._unit / max(right - left, bottom - top)
        px, py = self._pixels(x, y)
        place = px - (left + right) / 2 * scale, py - (top + bottom) / 2 * scale
        self._draw.text(place, char, colour, font("Sans", max(1, round(100 * scale))))

    def _edges(self, x: float, y: float, wide: float, high: float) -> tuple[float, ...]:
        (px, py), dx, dy = self._pixels(x, y), wide / 2 * self._unit, high / 2 * self._unit
        return px - dx, py - dy, px + dx, py + dy

    def _pixels(self, x: float, y: float) -> tuple[float, float]:
        return (x - self._left) * self._units[0], y * self._units[1]
