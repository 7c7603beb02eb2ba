"""A product's pack as a camera sees it: a label around a body that is round or square.

Lengths are in pack heights: y goes from 0 at the top to 1 at the bottom, x to the right and z
towards the camera, both 0 on the pack's axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.data.generated.catalogue import Design
from experiments.data.generated.drawing import WHITE, Canvas, Colour, lighter
from experiments.data.generated.label import draw_label, legible

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

_FRONT_ARC = math.radians(130)  # how far the front of a label reaches around a round pack
_GIRTHS = (1.0, 0.93, 1.05, 0.97)  # by plan: packs of one shape are not all equally stout
_METAL: Colour = (198, 202, 206)


@dataclass(frozen=True)
class Shape:
    """A kind of pack.

    Attributes:
        outline: pairs of a height and half the width there; of a square pack, whose width is the
            same everywhere, half the width for the depth there.
        label: where the label begins and ends; what closes the pack is above it.
        closure: where the closure ends.
        gloss: strength of the highlight in [0, 1].
        depth: as a share of the width.
        square: whether it has a front and two sides, instead of an ellipse seen from above.
    """

    outline: tuple[tuple[float, float], ...]
    label: tuple[float, float] = (0.0, 1.0)
    closure: float = 0.0
    gloss: float = 0.0
    depth: float = 1.0
    square: bool = False

    @property
    def front(self) -> float:
        """Width of the label's front in half widths."""
        return 2.0 if self.square or self.depth < 1 else _FRONT_ARC

    @property
    def margin(self) -> float:
        """How far the label goes on to the left and to the right of its front, in its widths."""
        return self.depth if self.square else 0.7


SHAPES = {
    "box": Shape(((0, 0.35), (1, 0.35)), depth=0.34, square=True),
    "brick": Shape(((0, 0.25), (1, 0.25)), depth=0.64, square=True),
    "carton": Shape(((0, 0), (0.07, 0), (0.24, 0.25), (1, 0.25)), (0.24, 1.0), 0.24, depth=0.92,
                    square=True),
    "bottle": Shape(((0, 0.115), (0.09, 0.115), (0.1, 0.097), (0.12, 0.1), (0.25, 0.25),
                     (0.3, 0.27), (0.96, 0.27), (1, 0.25)), (0.32, 0.94), 0.092, 0.55),
    "can": Shape(((0, 0.245), (0.025, 0.25), (0.075, 0.29), (0.93, 0.29), (0.975, 0.26),
                  (1, 0.25)), (0.05, 0.95), 0.03, 0.75),
    "cup": Shape(((0, 0.45), (0.045, 0.45), (0.05, 0.425), (0.97, 0.335), (1, 0.325)),
                 (0.05, 1.0), 0.048, 0.3),
    "jar": Shape(((0, 0.31), (0.165, 0.31), (0.17, 0.285), (0.2, 0.29), (0.28, 0.375),
                  (0.95, 0.375), (1, 0.345)), (0.31, 0.93), 0.168, 0.6),
    "pouch": Shape(((0, 0.38), (0.05, 0.375), (0.3, 0.355), (0.6, 0.36), (0.95, 0.375), (1, 0.38)),
                   closure=0.05, gloss=0.2, depth=0.2),
}  # fmt: skip


def view(design: Design, yaw: float, pitch: float, height: int) -> Pixels:
    """Draw a pack cut out of its photo, without perspective.

    A point at height v and depth z is seen at y = (v - 1/2) cos pitch + z sin pitch. What v and z
    a pixel shows is found by iteration, as the outline and with it z depend on v.

    Args:
        design: the product.
        yaw: turn about the pack's axis in radians; positive shows its left side.
        pitch: how far the camera looks down in radians, 0 or more.
        height: of the upright pack in pixels.

    Returns:
        RGB and opacity, uint8 [H, W, 4], as small as the pack allows.
    """
    shape = SHAPES[design.shape]
    look = _look_at_square if shape.square else _look_at_round
    outline, texture = _wrap(design, height)
    sin, cos, widest = math.sin(pitch), math.cos(pitch), float(outline.max())
    deepest = widest * shape.depth
    ends = math.cos(yaw) * widest, math.sin(yaw) * deepest
    reach = abs(ends[0]) + abs(ends[1]) if shape.square else math.hypot(*ends)
    top = 0.5 * cos + float(outline[0]) * shape.depth * sin
    across = np.arange(round(2 * reach * height), dtype=np.float32)[None] / height - reach
    rows = round((top + 0.5 * cos + deepest * sin) * height)
    down = np.arange(rows, dtype=np.float32)[:, None] / height - top
    level = down / cos + 0.5 + 0 * across
    for _ in range(2):
        here = outline[np.clip(level * height, 0, height - 1).astype(np.int32)]
        around, near, shade, shine, hit = look(shape, across, here, widest, yaw)
        level = (down - near * sin) / cos + 0.5
    columns = (
        (around / shape.front + 0.5 + shape.margin) * texture.shape[1] / (1 + 2 * shape.margin)
    )
    seen = cv2.remap(texture, columns, level * height, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    seen = cv2.cvtColor(_lit(np.asarray(seen), shade, shine), cv2.COLOR_RGB2RGBA)
    picture = np.zeros_like(seen)
    rim = _rim(shape, float(outline[0]), yaw, sin, (reach, top - 0.5 * cos), height)
    cv2.fillPoly(picture, [rim], (*lighter(_closure(design), 0.2), 255), cv2.LINE_AA, 4)
    return np.asarray(
        cv2.copyTo(seen, (hit & (level >= 0) & (level < 1)).astype(np.uint8), picture)
    )


Look = tuple[Floats, Floats, Floats, Floats | None, NDArray[np.bool_]]
"""Place around the pack, depth, shade, highlight, and whether the pack is there, at each pixel."""


def _look_at_round(shape: Shape, across: Floats, here: Floats, _widest: float, yaw: float) -> Look:
    sin, cos, depth = math.sin(yaw), math.cos(yaw), shape.depth
    stretch, turn = math.hypot(cos, depth * sin), math.atan2(depth * sin, cos)
    sideways = across / (stretch * here)
    towards = np.sqrt(np.maximum(1 - sideways * sideways, 0))
    near = depth / stretch * here * towards + (depth**2 - 1) * sin * cos / stretch**2 * across
    angle = np.arcsin(np.clip(sideways, -1, 1)) - turn
    around = np.sin(angle) if depth < 1 else angle
    shade = 1 + depth * (0.46 * towards - 0.21 * sideways - 0.42)
    shine = 130 * shape.gloss * np.exp(-((10 * sideways + 5) ** 2))
    return around, near, shade, shine, np.abs(sideways) <= 1


def _look_at_square(shape: Shape, across: Floats, here: Floats, widest: float, yaw: float) -> Look:
    sin, cos, depth = math.sin(yaw) or 1e-6, math.cos(yaw), shape.depth
    seen = -math.copysign(1, yaw)  # which side
    x = (across - here * depth * sin) / cos  # on the front
    z = (across - seen * widest * cos) / sin  # on the side
    front = np.abs(x) <= widest
    near = np.where(front, here * depth * cos - x * sin, z * cos + widest * abs(sin))
    around = np.where(front, x / widest, seen * (1 + depth - z / widest))
    shade = np.where(front, 1.0, 0.78 - 0.04 * seen)
    return around, near, shade, None, front | (np.abs(z) <= here * depth)


def _rim(
    shape: Shape, radius: float, yaw: float, sin: float, origin: tuple[float, float], height: int
) -> NDArray[np.int32]:
    """Return the pack's upper edge as a polygon [N, 2] in 16ths of a pixel."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, z = radius * np.sin(turn), radius * shape.depth * np.cos(turn)
    if shape.square:
        widest = shape.outline[-1][1]
        x, z = (widest if radius else 0) * np.sign(x), radius * shape.depth * np.sign(z)
    points = [x * math.cos(yaw) + z * math.sin(yaw), (z * math.cos(yaw) - x * math.sin(yaw)) * sin]
    return (16 * height * (np.stack(points, axis=1) + origin)).astype(np.int32)


@lru_cache(maxsize=64)
def _wrap(design: Design, height: int) -> tuple[Floats, Pixels]:
    """Return the outline at each of `height` levels, and what is around the pack."""
    shape, (base, *_) = SHAPES[design.shape], design.palette
    levels, widths = np.array(shape.outline).T
    outline = _GIRTHS[design.plan] * np.interp(np.linspace(0, 1, height), levels, widths)
    top, bottom = (round(level * height) for level in shape.label)
    front = round(outline.max() * height * shape.front)
    label = draw_label(design, front, bottom - top, shape.margin)
    width, closed, closure = label.shape[1], round(shape.closure * height), _closure(design)
    body = _METAL if design.shape == "can" else lighter(base, 0.3)
    texture = np.full((height, width, 3), body, np.uint8)
    texture[top:bottom] = label
    gain = np.ones((height, width), np.float32)
    ridges = 0.1 * np.sign(np.sin(0.9 * np.arange(width)))
    if design.shape == "pouch":  # creased, and crimped at both ends
        x, y = np.linspace(0, 1, width)[None], np.linspace(0, 1, height)[:, None]
        gain += 0.08 * np.sin(9 * y + 9 * x) * np.cos(31 * x - 4 * y)
        gain[-closed:] += ridges
    elif closed:
        texture[:closed] = closure
    if shape.square and closed:  # a carton's roof
        picture = Image.fromarray(texture[:closed])
        canvas = Canvas(picture, front, -shape.margin)
        canvas.oval(0.5, 0.25, 0.09, 0.07, WHITE)
        canvas.text(design.brand, 0.5, 0.4, 0.09, legible(closure, design), room=0.7)
        texture[:closed] = np.asarray(picture)
        gain[: round(0.3 * closed)] += 0.2
    else:
        gain[:closed] += ridges
    return outline.astype(np.float32), _lit(texture, gain)


def _closure(design: Design) -> Colour:
    return _METAL if design.shape == "can" else design.palette[1]


def _lit(picture: Pixels, gain: Floats, shine: Floats | None = None) -> Pixels:
    lit = picture * gain[..., None]
    if shine is not None:
        lit += shine[..., None]
    return np.clip(lit, 0, 255, out=lit).astype(np.uint8)
