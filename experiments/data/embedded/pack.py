"""Building a pack from a design: flat faces in space, or a label wrapped around a turned body.

Lengths are in pack heights: y goes from 0 at the top to 1 at the bottom, x to the right and z
towards the camera, both 0 on the pack's axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from experiments.data.embedded.design import Design, Palette, Shape
from experiments.data.embedded.label import front_label, side_label
from experiments.data.embedded.lettering import write
from experiments.data.embedded.pen import (
    Colour,
    Image,
    Pen,
    Points,
    blank,
    darker,
    lighter,
    luminance,
    mix,
)

_FRONT_ARC = np.radians(130)  # how far the front of a label reaches around a turned pack
_PROFILE_STEPS = 256
_METAL = (198, 202, 206)


@dataclass(frozen=True, eq=False)
class Face:
    """A flat side of a pack.

    Attributes:
        corners: float [N, 3], clockwise as seen from outside, from the top left.
        texture: RGB uint8 [h, w, 3] spread over the four corners, or one colour for any N.
        cutout: uint8 [h, w], 255 where the texture is there and 0 where it is cut away; or None.
    """

    corners: Points
    texture: Image | Colour
    cutout: Image | None = None


@dataclass(frozen=True, eq=False)
class FlatPack:
    """A pack of flat faces, those further back first."""

    faces: tuple[Face, ...]


@dataclass(frozen=True, eq=False)
class TurnedPack:
    """A pack that is round seen from above.

    Attributes:
        radius: float [256], half the width at evenly spaced heights from the top.
        texture: RGB uint8 [h, w, 3] of all the way around, the front in the middle.
        lid: colour of the top.
        gloss: strength of its highlights in [0, 1].
    """

    radius: NDArray[np.float64]
    texture: Image
    lid: Colour
    gloss: float


@dataclass(frozen=True)
class _Turning:
    """How a turned shape is made: its outline, and where the label and what closes it are."""

    outline: tuple[tuple[float, float], ...]
    label: tuple[float, float]
    closure: float
    gloss: float


_TURNINGS: dict[Shape, _Turning] = {
    "bottle": _Turning(
        outline=((0, 0.115), (0.09, 0.115), (0.095, 0.095), (0.12, 0.1), (0.25, 0.25), (0.3, 0.27),
                 (0.96, 0.27), (1, 0.25)),
        label=(0.32, 0.94), closure=0.092, gloss=0.55,
    ),
    "can": _Turning(
        outline=((0, 0.245), (0.025, 0.25), (0.075, 0.29), (0.93, 0.29), (0.975, 0.26), (1, 0.25)),
        label=(0.05, 0.95), closure=0.03, gloss=0.75,
    ),
    "cup": _Turning(
        outline=((0, 0.45), (0.045, 0.45), (0.05, 0.425), (0.97, 0.335), (1, 0.325)),
        label=(0.05, 1.0), closure=0.048, gloss=0.3,
    ),
    "jar": _Turning(
        outline=((0, 0.31), (0.165, 0.31), (0.17, 0.285), (0.2, 0.29), (0.28, 0.375), (0.95, 0.375),
                 (1, 0.345)),
        label=(0.31, 0.93), closure=0.168, gloss=0.6,
    ),
}  # fmt: skip

_BOX_SIZES: dict[Shape, tuple[float, float]] = {  # width and depth
    "carton": (0.5, 0.46),
    "brick": (0.5, 0.32),
    "box": (0.7, 0.24),
    "pouch": (0.76, 0.1),
}
_GIRTHS = (1.0, 0.93, 1.05, 0.97)  # packs of one shape are not all equally stout


@lru_cache(maxsize=64)
def pack_of(design: Design, height: int) -> FlatPack | TurnedPack:
    """The pack of a product with textures `height` pixels high; the last 64 are remembered."""
    shape = design.family.shape
    girth = _GIRTHS[design.family.plan % len(_GIRTHS)]
    if shape in _TURNINGS:
        return _turned(design, _TURNINGS[shape], girth, height)
    width, depth = (girth * length for length in _BOX_SIZES[shape])
    if shape == "carton":
        return _carton(design, width, depth, height)
    if shape == "pouch":
        return _pouch(design, width, height)
    return _box(design, width, depth, height)


def _box(design: Design, width: float, depth: float, height: int) -> FlatPack:
    palette = design.family.palette
    x, z = width / 2, depth / 2
    front = _edged(front_label(design, round(width * height), height, 0.0, 1.0))
    top = lighter(mix(palette.base, palette.second, 0.15), 0.15)
    faces = [
        *_sides(_edged(side_label(design, round(depth * height), height)), 0.0, x, z),
        Face(np.array([(-x, 0, -z), (x, 0, -z), (x, 0, z), (-x, 0, z)]), top),
        Face(_upright(-x, x, 0.0, 1.0, z), front),
    ]
    return FlatPack(tuple(faces))


def _carton(design: Design, width: float, depth: float, height: int) -> FlatPack:
    """A milk carton: upright body, sloping roof and the seam along its ridge."""
    palette = design.family.palette
    x, z, eaves, ridge = width / 2, depth / 2, 0.27, 0.08
    body = round((1 - eaves) * height)
    front = _edged(front_label(design, round(width * height), body, 0.0, 1.0))
    side = _edged(side_label(design, round(depth * height), body))
    colour = _roof_colour(palette)
    slope = np.array([(-x, ridge, 0), (x, ridge, 0), (x, eaves, z), (-x, eaves, z)])
    left = np.array([(-x, ridge, 0), (-x, eaves, z), (-x, eaves, -z)])
    right = np.array([(x, ridge, 0), (x, eaves, -z), (x, eaves, z)])
    faces = [
        Face(_upright(-x, x, 0.0, ridge, 0.0), lighter(colour, 0.2)),
        Face(left, darker(colour, 0.25)),
        Face(right, darker(colour, 0.25)),
        *_sides(side, eaves, x, z),
        Face(slope, _roof(design, width, height)),
        Face(_upright(-x, x, eaves, 1.0, z), front),
    ]
    return FlatPack(tuple(faces))


def _roof_colour(palette: Palette) -> Colour:
    return palette.second if luminance(palette.base) > 0.5 else palette.base


def _roof(design: Design, width: float, height: int) -> Image:
    colour = _roof_colour(design.family.palette)
    roof = blank(round(0.3 * height), round(width * height), colour)
    pen = Pen(roof, roof.shape[1])
    ink = (255, 255, 255) if luminance(colour) < 0.6 else design.family.palette.ink
    write(pen, design.family.brand, 0.5, 0.43, 0.12, ink, weight=0.2, max_width=0.7)
    for radius, shade in ((0.12, 0.25), (0.105, 0.0)):
        pen.disc(0.5, 0.17, radius, darker((240, 240, 236), shade))
    return roof


def _pouch(design: Design, width: float, height: int) -> FlatPack:
    """A bag: one bulging face between two crimped seams."""
    front = front_label(design, round(width * height), height, 0.0, 1.0)
    rows, columns = front.shape[:2]
    y = np.linspace(0, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    bulge = 1.08 - 0.3 * np.abs(x) ** 3.5 + 0.06 * np.sin(9 * y + 3 * x) * np.abs(x)
    creases = 0.09 * np.exp(-(((y - 0.5) / 0.36) ** 8)) - 0.09
    crimp = np.where((y < 0.055) | (y > 0.945), 0.1 * np.sin(np.arange(columns) * 1.3), 0.0)
    waist = 0.955 + 0.04 * np.abs(2 * y - 1) ** 3 - 0.012 * np.sin(21 * y)
    cutout = np.where(np.abs(x) < waist, 255, 0).astype(np.uint8)
    shaded = _lit(front, bulge + creases + crimp)
    return FlatPack((Face(_upright(-width / 2, width / 2, 0.0, 1.0, 0.0), shaded, cutout),))


def _turned(design: Design, turning: _Turning, girth: float, height: int) -> TurnedPack:
    palette = design.family.palette
    levels, widths = np.array(turning.outline).T
    radius = girth * np.interp(np.linspace(0, 1, _PROFILE_STEPS), levels, widths)
    top, bottom = turning.label
    rows = slice(round(top * height), round(bottom * height))
    front_width = round(float(radius.max()) * _FRONT_ARC * height)
    around = 2 * np.pi / _FRONT_ARC
    label = front_label(
        design, front_width, rows.stop - rows.start, 0.5 - around / 2, 0.5 + around / 2
    )
    is_can = design.family.shape == "can"
    body = _METAL if is_can else lighter(mix(palette.base, palette.second, 0.3), 0.15)
    closure = _METAL if is_can else palette.second
    texture = blank(height, label.shape[1], body)
    texture[rows] = label
    closed = round(turning.closure * height)
    ridges = 1 + 0.07 * np.sign(np.sin(np.arange(label.shape[1]) * 0.9))
    texture[:closed] = _lit(blank(closed, label.shape[1], closure), ridges[None, :])
    return TurnedPack(radius, texture, lighter(closure, 0.1), turning.gloss)


def _upright(left: float, right: float, top: float, bottom: float, z: float) -> Points:
    return np.array([(left, top, z), (right, top, z), (right, bottom, z), (left, bottom, z)])


def _sides(texture: Image, top: float, x: float, z: float) -> tuple[Face, Face]:
    shaded = _lit(texture, np.array([[0.8]]))
    left = np.array([(-x, top, -z), (-x, top, z), (-x, 1, z), (-x, 1, -z)])
    right = np.array([(x, top, z), (x, top, -z), (x, 1, -z), (x, 1, z)])
    return Face(left, shaded), Face(right, shaded)


def _edged(texture: Image) -> Image:
    """Card catches the light along its folds and darkens towards the floor."""
    rows, columns = texture.shape[:2]
    x = np.abs(np.linspace(-1, 1, columns))[None, :]
    y = np.linspace(0, 1, rows)[:, None]
    return _lit(texture, 1.02 - 0.06 * y**2 - 0.05 * x**6 + 0.1 * (x > 0.985))


def _lit(texture: Image, gain: NDArray[np.float64]) -> Image:
    return np.clip(texture * gain[..., None], 0, 255).astype(np.uint8)
