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
    lighter,
    luminance,
    mix,
)

Field = NDArray[np.floating[Any]]

_SUPERSAMPLING = 2
_BORDER = 0.025  # of accent where the second colour begins, in front widths
_BARS = np.flatnonzero(np.random.default_rng(5).random(40) < 0.5)


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

LOGOS = {
    "arch": ("Serif-Bold", "halo"),
    "band": ("Sans-Bold", "band"),
    "oval": ("Serif-BoldItalic", "oval"),
    "plain": ("Sans-Bold", "nothing"),
    "ribbon": ("Serif-Bold", "ribbon"),
    "slant": ("Sans-BoldOblique", "shadow"),
}
"""Typeface of the brand, and what is around or behind it."""


class Plan(NamedTuple):
    """Where the parts of a label go: x and y as shares of its width and height, radii in widths."""

    logo: float  # y; the product's name is right below
    product: float  # x
    picture: tuple[float, float, float]
    badge: tuple[float, float, float]
    word: tuple[float, float]


_UPRIGHT = (
    Plan(0.15, 0.5, (0.36, 0.51, 0.27), (0.74, 0.66, 0.2), (0.5, 0.87)),
    Plan(0.2, 0.5, (0.63, 0.56, 0.28), (0.26, 0.67, 0.21), (0.5, 0.88)),
    Plan(0.41, 0.5, (0.5, 0.17, 0.25), (0.5, 0.71, 0.19), (0.5, 0.915)),
    Plan(0.16, 0.6, (0.6, 0.59, 0.28), (0.24, 0.46, 0.2), (0.5, 0.88)),
)
_WIDE = (
    Plan(0.19, 0.36, (0.24, 0.63, 0.19), (0.76, 0.6, 0.19), (0.42, 0.89)),
    Plan(0.23, 0.66, (0.74, 0.64, 0.15), (0.25, 0.63, 0.19), (0.6, 0.88)),
    Plan(0.4, 0.62, (0.5, 0.14, 0.12), (0.19, 0.75, 0.17), (0.65, 0.84)),
    Plan(0.19, 0.5, (0.79, 0.62, 0.17), (0.45, 0.64, 0.16), (0.5, 0.9)),
)
_CORNERS = ((0.14, 0.42), (0.86, 0.42), (0.86, 0.68), (0.14, 0.68))


def draw_label(design: Design, width: int, height: int, margin: float) -> NDArray[np.uint8]:
    """Draw a label as if it were unrolled.

    Args:
        design: the product.
        width: of its front, in pixels.
        height: in pixels.
        margin: how far it goes on around the pack to the left and to the right, in front widths.

    Returns:
        RGB uint8 [height, round((1 + 2 * margin) * width), 3].
    """
    size = round((1 + 2 * margin) * width), height
    tall, unit = height / width, _SUPERSAMPLING * width
    ground = _ground(design, (_SUPERSAMPLING * size[0], _SUPERSAMPLING * height), unit, margin)
    canvas = Canvas(Image.fromarray(ground), unit, -margin)
    plan = (_UPRIGHT if tall >= 1.1 else _WIDE)[design.plan]
    scale = min(1.0, 0.9 * tall)
    _draw_picture(canvas, design, plan, tall)
    _draw_brand(canvas, design, plan, tall, scale)
    _draw_details(canvas, design, plan, tall, scale)
    _draw_print(canvas, design, tall, margin)
    return np.asarray(canvas.picture.reduce(_SUPERSAMPLING))


def legible(background: Colour, design: Design) -> Colour:
    """Return a colour of the palette that stands out from the background; else white or black."""
    base, second, _, ink = design.palette
    choices = (ink, base, second, WHITE, BLACK)
    return next(c for c in choices if abs(luminance(c) - luminance(background)) > 0.42)


def _ground(design: Design, size: tuple[int, int], unit: int, margin: float) -> NDArray[np.uint8]:
    x = np.arange(size[0], dtype=np.float32)[None] / unit - margin
    y = np.arange(size[1], dtype=np.float32)[:, None] / unit
    base, second, accent, _ = design.palette
    pattern = GROUNDS[design.ground](x, y, size[1] / unit)
    tints = [mix(base, second, share / 255) for share in range(256)]
    index = np.where((pattern > 1) & (pattern <= 1 + _BORDER), 256, 255 * np.minimum(pattern, 1))
    return np.array([*tints, accent], np.uint8)[index.astype(np.int16)]


def _draw_picture(canvas: Canvas, design: Design, plan: Plan, tall: float) -> None:
    (x, y, radius), (_, second, accent, _) = plan.picture, design.palette
    disc = lighter(mix(accent, second, 0.15), 0.25)
    for share, colour in ((1.06, darker(disc, 0.4)), (1.0, darker(disc, 0.15)), (0.9, disc)):
        canvas.oval(x, y * tall, share * radius, share * radius, colour)
    canvas.symbol(design.picture, x, y * tall, 0.66 * radius, legible(disc, design))


def _draw_brand(canvas: Canvas, design: Design, plan: Plan, tall: float, scale: float) -> None:
    x, y = 0.5, plan.logo * tall
    base, second, accent, ink = design.palette
    style, around = LOGOS[design.logo]
    halo, room, plate = None, 0.84, darker(second, 0.1)
    if around == "band":
        canvas.box(x, y, 4.0, 0.3 * scale, accent)
        canvas.box(x, y, 4.0, 0.25 * scale, plate)
    elif around == "oval":
        room = 0.68
        canvas.oval(x, y, 0.46, 0.18 * scale, accent)
        canvas.oval(x, y, 0.43, 0.155 * scale, plate)
    elif around == "ribbon":
        room = 0.7
        for end in (0.06, 0.94):
            canvas.box(end, y + 0.06 * scale, 0.12, 0.22 * scale, darker(plate, 0.35))
        canvas.box(x, y, 0.8, 0.25 * scale, plate)
    elif around == "halo":
        halo = WHITE if luminance(ink) < 0.5 else darker(base, 0.45)
    elif around == "shadow":
        shade = darker(base, 0.5)
        canvas.text(design.brand, x + 0.014, y + 0.014, 0.19 * scale, shade, style=style, room=room)
    colour = legible(canvas.colour_at(x, y), design) if halo is None else ink
    canvas.text(design.brand, x, y, 0.19 * scale, colour, style=style, room=room, halo=halo)
    below = plan.product, y + 0.215 * scale
    behind = canvas.colour_at(*below)
    colour = legible(behind, design)
    canvas.text(design.product, *below, 0.075 * scale, colour, room=0.6, halo=behind)


def _draw_details(canvas: Canvas, design: Design, plan: Plan, tall: float, scale: float) -> None:
    """Draw what the member does not share with its siblings."""
    (_, second, accent, ink), difference = design.palette, design.difference
    own = design.colour if difference == "flavour" else lighter(accent, 0.2)
    x, y, wide = plan.word[0], plan.word[1] * tall, 0.14 + min(0.62, 0.1 * len(design.word))
    if difference == "stripe":
        canvas.box(0.5, y - 0.14 * scale, 0.88, 0.075 * scale, design.colour)
    canvas.box(x, y, wide + 0.02, 0.16 * scale, darker(own, 0.2), 0.08 * scale)
    canvas.box(x, y, wide, 0.14 * scale, own, 0.07 * scale)
    canvas.text(design.word, x, y, 0.085 * scale, legible(own, design), room=wide - 0.06)
    x, y, radius = plan.badge[0], plan.badge[1] * tall, plan.badge[2]
    if difference in ("flavour", "badge"):
        _draw_badge(canvas, design, x, y, radius, darker(own, 0.1))
    elif difference == "grade":
        for share, colour in ((1.0, ink), (0.92, WHITE), (0.84, second)):
            canvas.oval(x, y, share * radius, share * radius, colour)
        colour = legible(second, design)
        canvas.text(design.number, x, y, 0.8 * radius, colour, room=1.4 * radius)
    elif difference == "emblem":
        x, y = _CORNERS[design.place]
        canvas.symbol("✹", x, y * tall, 0.15 * scale, ink)
        canvas.oval(x, y * tall, 0.09 * scale, 0.09 * scale, accent)
        canvas.symbol("★", x, y * tall, 0.07 * scale, ink)


def _draw_badge(
    canvas: Canvas, design: Design, x: float, y: float, radius: float, ring: Colour
) -> None:
    canvas.oval(x, y, radius, radius, ring)
    canvas.oval(x, y, 0.88 * radius, 0.88 * radius, (255, 252, 245))
    body, leaf = design.symbol[0], design.symbol[1:]
    drop = 0.12 * radius if leaf else 0.0
    colour = darker(design.colour, 0.2 if luminance(design.colour) > 0.8 else 0.0)
    canvas.symbol(body, x, y + drop, 0.6 * radius - drop, colour)
    for char in leaf:
        canvas.symbol(char, x + 0.05 * radius, y - 0.45 * radius, 0.27 * radius, (52, 130, 52))


def _draw_print(canvas: Canvas, design: Design, tall: float, margin: float) -> None:
    """Draw the weight on the front, a barcode to its left and small print to its right."""
    colour = legible(canvas.colour_at(0.12, 0.96 * tall), design)
    canvas.text(design.weight, 0.14, 0.96 * tall, 0.034, colour, room=0.2)
    middle, half = min(0.3, margin / 2), min(0.2, 0.4 * margin)
    canvas.box(-middle, 0.75 * tall, 2 * half, 0.2 * tall, WHITE)
    for bar in _BARS:
        x = -middle + half * (-0.85 + 1.7 * (bar + 0.5) / 40)
        canvas.box(x, 0.75 * tall, 1.7 * half / 40, 0.16 * tall, BLACK)
    canvas.box(1 + middle, 0.4 * tall, 2 * half, 0.4 * tall, WHITE)
    for row, share in enumerate((0.8, 0.7, 0.78, 0.5, 0.8, 0.75, 0.62, 0.8, 0.4)):
        y = tall * (0.25 + 0.0375 * row)
        canvas.box(1 + middle - half * (0.8 - share), y, 2 * half * share, 0.012 * tall, BLACK)
