"""A pen that draws smooth shapes on an image in unit coordinates instead of pixels."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Points = NDArray[np.float64]
Colour = tuple[int, int, int]

_SUBPIXEL_BITS = 4
_TURN = np.linspace(0, 2 * np.pi, 48, endpoint=False)


def rgb(code: str) -> Colour:
    """Red, green and blue in [0, 255] of a colour code such as "F3E9DA"."""
    return int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16)


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """`colour` with a `share` in [0, 1] of it replaced by `other`."""
    return (
        round(colour[0] + share * (other[0] - colour[0])),
        round(colour[1] + share * (other[1] - colour[1])),
        round(colour[2] + share * (other[2] - colour[2])),
    )


def lighter(colour: Colour, share: float = 0.35) -> Colour:
    """`colour` moved towards white by `share`."""
    return mix(colour, (255, 255, 255), share)


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """`colour` moved towards black by `share`."""
    return mix(colour, (0, 0, 0), share)


def luminance(colour: Colour) -> float:
    """Perceived brightness of `colour` in [0, 1]."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def vivid(hue: float, saturation: float, value: float) -> Colour:
    """The colour of a hue, saturation and value, each in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def blank(height: int, width: int, colour: Colour) -> Image:
    """An RGB uint8 image [height, width, 3] of one colour."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = np.tile(np.asarray(colour, np.uint8), (width, 1))
    return canvas


def oval(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Points:
    """Points [48, 2] of an ellipse with radii `rx`, `ry`, turned by `angle` radians."""
    across, down = rx * np.cos(_TURN), ry * np.sin(_TURN)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + cos * across - sin * down, y + sin * across + cos * down], axis=1)


def shifted(points: ArrayLike, x: float, y: float) -> Points:
    """Points [N, 2] moved right by `x` and down by `y`."""
    return np.asarray(points, np.float64) + np.array([x, y])


class Pen:
    """Draws on an RGB uint8 image [H, W, 3] in place.

    Attributes:
        canvas: the image drawn on.
        unit: pixels in one unit of length.
        origin: the pixel (x, y) of the unit coordinates (0, 0); x goes right and y goes down.
    """

    def __init__(self, canvas: Image, unit: float, origin: tuple[float, float] = (0.0, 0.0)):
        self.canvas = canvas
        self.unit = unit
        self.origin = origin

    def at(self, x: float, y: float, scale: float) -> Pen:
        """A pen on the same canvas whose (0, 0) is at (x, y) and whose unit is `scale` units."""
        origin = (self.origin[0] + x * self.unit, self.origin[1] + y * self.unit)
        return Pen(self.canvas, self.unit * scale, origin)

    def polygon(self, points: ArrayLike, colour: Colour) -> None:
        """Fills the polygon with corners `points` [N, 2]."""
        cv2.fillPoly(self.canvas, [self._pixels(points)], colour, cv2.LINE_AA, _SUBPIXEL_BITS)

    def stroke(
        self, points: ArrayLike, width: float, colour: Colour, *, closed: bool = False
    ) -> None:
        """Draws a line with round ends, `width` units thick, through `points` [N, 2]."""
        thickness = max(1, round(width * self.unit))
        pixels = self._pixels(points)
        cv2.polylines(self.canvas, [pixels], closed, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def oval(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0.0
    ) -> None:
        """Fills an ellipse turned by `angle` radians."""
        self.polygon(oval(x, y, rx, ry, angle), colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fills a circle."""
        self.polygon(oval(x, y, radius, radius), colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fills the rectangle between two corners."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def pill(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fills a rectangle with fully rounded short sides."""
        radius = (y1 - y0) / 2
        middle = (y0 + y1) / 2
        self.box(x0 + radius, y0, x1 - radius, y1, colour)
        self.disc(x0 + radius, middle, radius, colour)
        self.disc(x1 - radius, middle, radius, colour)

    def _pixels(self, points: ArrayLike) -> NDArray[np.int32]:
        pixels = np.asarray(points, np.float64) * self.unit + self.origin
        return np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def smooth(points: Sequence[tuple[float, float]], closed: bool = True) -> Points:
    """Points of a smooth curve guided by the corners `points`, by cutting corners three times."""
    curve = np.asarray(points, np.float64)
    for _ in range(3):
        following = np.roll(curve, -1, axis=0)
        cut = np.stack([0.75 * curve + 0.25 * following, 0.25 * curve + 0.75 * following], axis=1)
        corners = cut.reshape(-1, 2)
        curve = corners if closed else np.vstack([curve[:1], corners[:-2], curve[-1:]])
    return curve
