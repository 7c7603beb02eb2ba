"""The flat label of a product: ground, picture, brand, and the details of the member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.data.generated.catalogue import Design
from experiments.data.generated.drawing import (
    BLACK,
    WHITE,
    Canvas,
    Colour,
    darker,
    legible,
    lighter,
    mix,
    rgb,
)

Field = NDArray[np.floating[Any]]

_BORDER = 0.025  # of accent where the second colour begins, in front widths
_CREAM = rgb("FFFCF5")
_LEAF = rgb("348234")
_BARCODE = "║▌║│█║▌│║▌║"


def _within(distance: Field) -> Field:
    """Return 1 + `distance` where it is above 0, and 0 elsewhere."""
    return np.where(distance > 0, 1 + distance, 0)


# Patterns over x and y in front widths, on a label `tall` high: up to 1 the share of the second
# colour in the base, above it 1 and the distance to where the second colour begins.
GROUNDS: dict[str, Callable[[Field, Field, float], Field]] = {
    "arch": lambda x, y, tall: _within(0.42 * tall - np.hypot(0.62 * (x - 0.5), tall - y)),
    "band": lambda x, y, tall: _within(np.maximum(0.06 - y, y - 0.9 * tall) + 0 * x),
    "diagonal": lambda x, y, tall: _within(y - 0.74 * tall + 0.35 * min(1, tall) * (x - 0.5)),
    "dots": lambda x, y, _: 0.3 * (np.hypot(x % 0.125 - 0.06, y % 0.125 - 0.06) < 0.022),
    "fade": lambda x, y, tall: 0.55 * y / tall + 0 * x,
    "rays": lambda x, y, tall: np.maximum(
        0.16 * (np.arctan2(y - tall / 2, x - 0.5) % (np.pi / 6) < 0.26), _within(y - tall + 0.1)
    ),
    "split": lambda x, y, tall: _within(y - 0.62 * tall + 0 * x),
    "stripes": lambda x, y, tall: np.maximum(
        0.18 * (x % 0.125 < 0.0625), _within(np.maximum(0.07 - y, y - tall + 0.07))
    ),
    "wave": lambda x, y, tall: _within(y - 0.68 * tall - 0.05 * np.sin(2 * np.pi * x)),
}


class Logo(NamedTuple):
    """The look of a brand name: its typeface, and the plate behind it where there is one."""

    style: str
    plate: Callable[[Canvas, float, float, float, float, Colour], None] | None = None
    wide: float = 1.05  # of the plate
    high: float = 0.25


LOGOS = {
    "arch": Logo("Serif-Bold"),
    "band": Logo("Sans-Bold", Canvas.box, 4.0),
    "oval": Logo("Serif-BoldItalic", Canvas.oval, 0.86, 0.31),
    "plain": Logo("Sans-Bold"),
    "ribbon": Logo("Serif-Bold", Canvas.box, 0.8),
    "slant": Logo("Sans-BoldOblique"),
}


class Plan(NamedTuple):
    """Where the parts of a label go, in its widths and heights; third numbers are radii."""

    logo: float  # height; the product's name is right below
    product: float
    picture: tuple[float, float, float]
    badge: tuple[float, float, float]


PLANS = (
    Plan(0.15, 0.5, (0.36, 0.51, 0.27), (0.74, 0.66, 0.2)),
    Plan(0.2, 0.5, (0.63, 0.56, 0.28), (0.26, 0.67, 0.21)),
    Plan(0.41, 0.5, (0.5, 0.17, 0.25), (0.5, 0.71, 0.19)),
    Plan(0.16, 0.6, (0.6, 0.59, 0.28), (0.24, 0.46, 0.2)),
)
_CORNERS = ((0.14, 0.42), (0.86, 0.42), (0.86, 0.68), (0.14, 0.68))


def draw_label(design: Design, width: int, height: int, margin: float) -> NDArray[np.uint8]:
    """Draw a label as if it were unrolled.

    Args:
        design: the product.
        width: width of the label's front in pixels.
        height: height of the label in pixels.
        margin: how far the label goes on to the left and right of its front, in front widths.

    Returns:
        RGB uint8 [height, round((1 + 2 * margin) * width), 3].
    """
    ground, tall = Image.fromarray(_ground(design, width, height, margin)), height / width
    canvas = Canvas(ground, width, -margin, tall, min(1.0, 0.8 * tall))
    _draw_family(canvas, design)
    _draw_member(canvas, design)
    canvas.text(design.weight, 0.14, 0.96, 0.034, design.inks, room=0.2)
    canvas.box(-margin / 2, 0.75, 0.7 * margin, 0.2, WHITE)
    canvas.text(_BARCODE, -margin / 2, 0.75, 0.1, [BLACK], room=0.6 * margin)
    return np.asarray(canvas.picture)


def _ground(design: Design, width: int, height: int, margin: float) -> NDArray[np.uint8]:
    x = np.arange(round((1 + 2 * margin) * width), dtype=np.float32)[None] / width - margin
    y = np.arange(height, dtype=np.float32)[:, None] / width
    base, second, accent, _ = design.palette
    pattern = GROUNDS[design.ground](x, y, height / width)
    tints = [mix(base, second, share / 255) for share in range(256)]
    index = np.where((pattern > 1) & (pattern <= 1 + _BORDER), 256, 255 * np.minimum(pattern, 1))
    return np.array([*tints, accent], np.uint8)[index.astype(np.int16)]


def _draw_family(canvas: Canvas, design: Design) -> None:
    """Draw the picture, the brand and the product's name, which the siblings share."""
    plan, (_, second, accent, _) = PLANS[design.plan], design.palette
    (x, y, radius), disc = plan.picture, lighter(mix(accent, second, 0.15), 0.25)
    canvas.discs(x, y, 1.06 * radius, darker(disc, 0.4), disc)
    canvas.symbol(design.picture, x, y, 0.66 * radius, legible(disc, design.inks))
    logo = LOGOS[design.logo]
    if logo.plate:
        logo.plate(canvas, 0.5, plan.logo, logo.wide + 0.06, logo.high + 0.05, accent)
        logo.plate(canvas, 0.5, plan.logo, logo.wide, logo.high, darker(second, 0.1))
    room = min(0.84, 0.8 * logo.wide)
    canvas.text(design.brand, 0.5, plan.logo, 0.19, design.inks, style=logo.style, room=room)
    below = plan.logo + 0.215 * canvas.step
    canvas.text(design.product, plan.product, below, 0.075, design.inks, room=0.6)


def _draw_member(canvas: Canvas, design: Design) -> None:
    """Draw what the member does not share with its siblings."""
    (_, second, accent, ink), difference = design.palette, design.difference
    own = design.colour if difference == "flavour" else lighter(accent, 0.2)
    wide = 0.14 + min(0.62, 0.1 * len(design.word))
    if difference == "stripe":
        canvas.box(0.5, 0.88 - 0.14 * canvas.step, 0.88, 0.075, design.colour)
    canvas.box(0.5, 0.88, wide + 0.02, 0.16, darker(own, 0.2), 0.08)
    canvas.box(0.5, 0.88, wide, 0.14, own, 0.07)
    canvas.text(design.word, 0.5, 0.88, 0.085, design.inks, room=wide - 0.06)
    x, y, radius = PLANS[design.plan].badge
    if difference in ("flavour", "badge"):
        canvas.discs(x, y, radius, darker(own, 0.1), _CREAM)
        body, leaf = design.symbol[0], design.symbol[1:]
        canvas.symbol(body, x, y, 0.6 * radius, design.colour)
        for char in leaf:
            canvas.symbol(char, x, y - 0.35 * radius * canvas.step, 0.3 * radius, _LEAF)
    elif difference == "grade":
        canvas.discs(x, y, radius, ink, WHITE, second)
        canvas.text(design.number, x, y, 0.8 * radius, design.inks, room=1.4 * radius)
    elif difference == "emblem":
        x, y = _CORNERS[design.place]
        canvas.discs(x, y, 0.14, ink, accent)
        canvas.symbol("★", x, y, 0.09, ink)
