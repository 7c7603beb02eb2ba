"""A canvas for shapes, words and symbols in unit lengths instead of pixels."""

from __future__ import annotations

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


def luminance(colour: Colour) -> float:
    """Return the perceived brightness of `colour` in [0, 1]."""
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
        unit: pixels in one unit of length.
        left: x of the picture's left edge in units; x goes right, and y down from 0.
    """

    def __init__(self, picture: Image.Image, unit: float, left: float = 0.0) -> None:
        self.picture = picture
        self._unit = unit
        self._left = left
        self._draw = ImageDraw.Draw(picture)

    def box(
        self, x: float, y: float, wide: float, high: float, colour: Colour, radius: float = 0.0
    ) -> None:
        """Fill a rectangle around (x, y) with corners of a radius."""
        edges = *self._pixels(x - wide / 2, y - high / 2), *self._pixels(x + wide / 2, y + high / 2)
        self._draw.rounded_rectangle(edges, radius * self._unit, colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse around (x, y)."""
        self._draw.ellipse((*self._pixels(x - rx, y - ry), *self._pixels(x + rx, y + ry)), colour)

    def text(
        self,
        text: str,
        x: float,
        y: float,
        height: float,
        colour: Colour,
        *,
        style: str = "Sans-Bold",
        room: float = 10.0,
        halo: Colour | None = None,
    ) -> None:
        """Write capitals around (x, y), `height` high or as much smaller as fits into `room`."""
        text = text.upper()
        size = height / _CAPITALS * self._unit
        size *= min(1.0, room * self._unit / font(style, 100).getlength(text) * 100 / size)
        px, py = self._pixels(x, y)
        edge = 0 if halo is None else max(1, round(0.09 * size))
        self._draw.text(
            (px, py + _CAPITALS * size / 2), text, colour, font(style, max(1, round(size))), "ms",
            stroke_width=edge, stroke_fill=halo,
        )  # fmt: skip

    def symbol(self, char: str, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a character of DejaVu Sans as large as fits into a square around (x, y)."""
        left, top, right, bottom = font("Sans", 100).getbbox(char)
        scale = 2 * radius * self._unit / max(right - left, bottom - top)
        px, py = self._pixels(x, y)
        place = px - (left + right) / 2 * scale, py - (top + bottom) / 2 * scale
        self._draw.text(place, char, colour, font("Sans", max(1, round(100 * scale))))

    def colour_at(self, x: float, y: float) -> Colour:
        """Return the colour at (x, y)."""
        px, py = self._pixels(x, y)
        red, green, blue = np.asarray(self.picture.getpixel((int(px), int(py)))).tolist()
        return red, green, blue

    def _pixels(self, x: float, y: float) -> tuple[float, float]:
        return (x - self._left) * self._unit, y * self._unit
