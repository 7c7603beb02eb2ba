"""A product's pack as a camera in front of it sees it: a label around a round or square body.

Lengths are in pack heights: levels go from 0 at the top to 1 at the bottom, and x is 0 on the
pack's axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.generated.catalogue import Design
from experiments.data.generated.drawing import Colour, darker, lighter
from experiments.data.generated.label import draw_label

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

_FRONT_ARC = math.radians(130)  # how far the front of a label reaches around a round pack
_GIRTHS = (1.0, 0.93, 1.05, 0.97)  # by plan: packs of one shape are not all equally stout
_METAL: Colour = (198, 202, 206)


@dataclass(frozen=True)
class Shape:
    """A kind of pack.

    Attributes:
        outline: pairs of a level and half the width there; of a square pack, whose width is the
            same everywhere, half the width for the depth there.
        label: levels at which the label begins and ends.
        closure: level at which what closes the pack ends.
        gloss: strength of the highlight in [0, 1].
        depth: depth of a square pack as a share of its width; 0 for a round pack.
    """

    outline: tuple[tuple[float, float], ...]
    label: tuple[float, float] = (0.0, 1.0)
    closure: float = 0.0
    gloss: float = 0.0
    depth: float = 0.0

    @property
    def front(self) -> float:
        """Width of the label's front: in half widths, or in radians around a round pack."""
        return 2.0 if self.depth else _FRONT_ARC

    @property
    def margin(self) -> float:
        """How far the label goes on to the left and to the right of its front, in its widths."""
        return self.depth or 0.7


SHAPES = {
    "box": Shape(((0, 0.35), (1, 0.35)), depth=0.34),
    "brick": Shape(((0, 0.25), (1, 0.25)), depth=0.64),
    "carton": Shape(((0, 0), (0.07, 0), (0.24, 0.25), (1, 0.25)), (0.24, 1.0), 0.24, depth=0.92),
    "bottle": Shape(((0, 0.115), (0.09, 0.115), (0.1, 0.097), (0.12, 0.1), (0.25, 0.25),
                     (0.3, 0.27), (0.96, 0.27), (1, 0.25)), (0.32, 0.94), 0.092, 0.55),
    "can": Shape(((0, 0.245), (0.025, 0.25), (0.075, 0.29), (0.93, 0.29), (0.975, 0.26),
                  (1, 0.25)), (0.05, 0.95), 0.03, 0.75),
    "cup": Shape(((0, 0.45), (0.045, 0.45), (0.05, 0.425), (0.97, 0.335), (1, 0.325)),
                 (0.05, 1.0), 0.048, 0.3),
    "jar": Shape(((0, 0.31), (0.165, 0.31), (0.17, 0.285), (0.2, 0.29), (0.28, 0.375),
                  (0.95, 0.375), (1, 0.345)), (0.31, 0.93), 0.168, 0.6),
    "pouch": Shape(((0, 0.38), (0.05, 0.375), (0.3, 0.355), (0.6, 0.36), (0.95, 0.375), (1, 0.38)),
                   closure=0.05, gloss=0.2),
}  # fmt: skip


def view(design: Design, yaw: float, height: int) -> Pixels:
    """Draw a pack cut out of its photo, without perspective.

    Args:
        design: the product.
        yaw: turn about the pack's axis in radians; positive shows its left side.
        height: height of the pack in pixels.

    Returns:
        RGB and opacity, uint8 [H, W, 4], as small as the pack allows.
    """
    shape = SHAPES[design.shape]
    outline, texture = _wrap(design, height)
    widest = float(outline.max())
    reach = widest * (math.cos(yaw) + shape.depth * abs(math.sin(yaw)) if shape.depth else 1.0)
    across = np.arange(round(2 * reach * height), dtype=np.float32)[None] / height - reach
    if shape.depth:
        around, shade, hit = _look_at_square(across, outline, widest, shape.depth, yaw)
    else:
        around, shade, hit = _look_at_round(across, outline, shape.gloss, yaw)
    columns = (around / shape.front + 0.5 + shape.margin) * texture.shape[1]
    columns = (columns / (1 + 2 * shape.margin)).astype(np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None] + 0 * columns
    seen = cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return np.dstack([np.clip(seen * shade[..., None], 0, 255), 255 * hit]).astype(np.uint8)


Look = tuple[Floats, Floats, NDArray[np.bool_]]
"""Place around the pack, brightness, and whether the pack is there, at each pixel."""


def _look_at_round(across: Floats, outline: Floats, gloss: float, yaw: float) -> Look:
    sideways = across / outline
    towards = np.sqrt(np.maximum(1 - sideways * sideways, 0))
    shade = 0.58 + 0.46 * towards - 0.21 * sideways + gloss * np.exp(-((10 * sideways + 5) ** 2))
    return np.arcsin(np.clip(sideways, -1, 1)) - yaw, shade, np.abs(sideways) <= 1


def _look_at_square(
    across: Floats, outline: Floats, widest: float, depth: float, yaw: float
) -> Look:
    sin, cos = math.sin(yaw) or 1e-6, math.cos(yaw)
    seen = -math.copysign(1, yaw)  # which side
    x = (across - outline * depth * sin) / cos  # on the front
    z = (across - seen * widest * cos) / sin  # on the side
    front = np.abs(x) <= widest
    around = np.where(front, x / widest, seen * (1 + depth - z / widest))
    return around, np.where(front, 1.0, 0.74), front | (np.abs(z) <= outline * depth)


@lru_cache(maxsize=64)
def _wrap(design: Design, height: int) -> tuple[Floats, Pixels]:
    """Return half the width at each of `height` levels, and what is around the pack."""
    shape, (base, second, *_) = SHAPES[design.shape], design.palette
    levels, widths = np.array(shape.outline).T
    outline = _GIRTHS[design.plan] * np.interp(np.linspace(0, 1, height), levels, widths)
    top, bottom = (round(level * height) for level in shape.label)
    front = round(outline.max() * height * shape.front)
    label = draw_label(design, front, bottom - top, shape.margin)
    body, closure = (_METAL, _METAL) if design.shape == "can" else (lighter(base, 0.3), second)
    texture = np.full((height, label.shape[1], 3), body, np.uint8)
    texture[top:bottom] = label
    ridges = np.arange(label.shape[1])[:, None] % 6 < (0 if shape.depth else 3)
    texture[: round(shape.closure * height)] = np.where(ridges, darker(closure, 0.2), closure)
    return outline[:, None].astype(np.float32), texture
