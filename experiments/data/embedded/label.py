"""Drawing a product's flat label: ground, picture, logo, and the details of the member."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from experiments.data.embedded.design import Design, Palette
from experiments.data.embedded.glyphs import draw_glyph
from experiments.data.embedded.grounds import GROUNDS
from experiments.data.embedded.lettering import write
from experiments.data.embedded.pen import (
    Colour,
    Image,
    Pen,
    blank,
    darker,
    lighter,
    luminance,
    mix,
    oval,
)
from experiments.data.embedded.pictures import PICTURES

_SUPERSAMPLING = 2
_PRODUCT_BELOW_LOGO = 0.21
_WHITE = (255, 255, 255)
_PRINT = (52, 52, 58)


@dataclass(frozen=True)
class Plan:
    """Where the parts of a label go: x and y as shares of its width and height, radii in widths.

    The product's name stands right below the logo, so that only its x is given.
    """

    logo: tuple[float, float]
    product: float
    picture: tuple[float, float, float]
    badge: tuple[float, float, float]
    word: tuple[float, float]


PLANS = {
    "portrait": (
        Plan((0.5, 0.15), 0.5, (0.4, 0.5, 0.33), (0.72, 0.65, 0.22), (0.5, 0.87)),
        Plan((0.5, 0.27), 0.5, (0.6, 0.6, 0.32), (0.26, 0.67, 0.21), (0.5, 0.88)),
        Plan((0.5, 0.41), 0.5, (0.5, 0.17, 0.28), (0.5, 0.735, 0.19), (0.5, 0.915)),
        Plan((0.5, 0.16), 0.6, (0.57, 0.585, 0.32), (0.25, 0.46, 0.2), (0.5, 0.88)),
    ),
    "landscape": (
        Plan((0.5, 0.19), 0.36, (0.27, 0.62, 0.2), (0.76, 0.6, 0.19), (0.42, 0.88)),
        Plan((0.5, 0.23), 0.66, (0.74, 0.64, 0.17), (0.25, 0.63, 0.19), (0.6, 0.87)),
        Plan((0.5, 0.4), 0.62, (0.5, 0.15, 0.16), (0.19, 0.75, 0.17), (0.65, 0.82)),
        Plan((0.5, 0.19), 0.5, (0.78, 0.62, 0.19), (0.48, 0.65, 0.165), (0.5, 0.9)),
    ),
}


def front_label(design: Design, width: int, height: int, left: float, right: float) -> Image:
    """The label seen from the front, with as much of its ground as goes around the pack.

    Args:
        design: the product.
        width: of the front, in pixels.
        height: in pixels.
        left: where the image begins, in front widths; the front goes from 0 to 1.
        right: where the image ends, in front widths.

    Returns:
        RGB uint8 image [height, round((right - left) * width), 3].
    """
    canvas, pen = _canvas(width, height, left, right)
    tall = height / width
    family = design.family
    plan = _plan(design, tall)
    size = min(1.0, 0.9 * tall)
    GROUNDS[family.ground](pen, family.palette, left, right, tall)
    x, y, radius = plan.picture
    PICTURES[family.picture](pen.at(x, y * tall, radius), family.palette)
    _draw_brand(pen, design, plan, tall, size)
    _draw_details(pen, design, plan, tall, size)
    _draw_surroundings(pen, design, tall, left, right)
    return _shrunk(canvas)


def side_label(design: Design, width: int, height: int) -> Image:
    """The narrow side of a box: RGB uint8 [height, width, 3] with small print and a barcode."""
    canvas, pen = _canvas(width, height, 0.0, 1.0)
    tall = height / width
    GROUNDS[design.family.ground](pen, design.family.palette, 0.0, 1.0, tall)
    _draw_small_print(pen, 0.5, 0.28 * tall, 0.38, 0.2 * tall)
    _draw_barcode(pen, 0.5, 0.8 * tall, 0.3, 0.09 * tall)
    return _shrunk(canvas)


def _canvas(width: int, height: int, left: float, right: float) -> tuple[Image, Pen]:
    across = round((right - left) * width)
    canvas = blank(_SUPERSAMPLING * height, _SUPERSAMPLING * across, _WHITE)
    unit = float(_SUPERSAMPLING * width)
    return canvas, Pen(canvas, unit, (-left * unit, 0.0))


def _shrunk(canvas: Image) -> Image:
    height, width = canvas.shape[0] // _SUPERSAMPLING, canvas.shape[1] // _SUPERSAMPLING
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _plan(design: Design, tall: float) -> Plan:
    plans = PLANS["portrait" if tall >= 1.1 else "landscape"]
    return plans[design.family.plan % len(plans)]


def _draw_brand(pen: Pen, design: Design, plan: Plan, tall: float, size: float) -> None:
    family = design.family
    x, y = plan.logo
    LOGOS[family.logo](pen.at(x, y * tall, size), family.brand, family.palette, 0.84 / size)
    below = pen.at(plan.product, y * tall + _PRODUCT_BELOW_LOGO * size, size)
    behind = _colour_at(below)
    for weight, colour in ((0.6, behind), (0.17, _legible(behind, family.palette))):
        write(below, family.product, 0, 0, 0.078, colour, weight=weight, spacing=0.37 - weight,
              max_width=0.62 / size)  # fmt: skip


def _draw_details(pen: Pen, design: Design, plan: Plan, tall: float, size: float) -> None:
    """What the member does not share with its siblings."""
    family, variant = design.family, design.variant
    difference = family.difference
    x, y, radius = plan.badge
    badge = pen.at(x, y * tall, radius)
    coloured = difference == "flavour"
    strip = variant.colour if coloured else mix(family.palette.accent, _WHITE, 0.2)
    _draw_word(pen.at(plan.word[0], plan.word[1] * tall, size), variant.word, strip, family.palette)
    if difference in ("flavour", "badge"):
        _draw_badge(badge, design, variant.colour if coloured else family.palette.accent)
    if difference == "grade":
        _draw_number(badge, variant.number, family.palette)
    if difference == "stripe":
        y = plan.word[1] * tall - 0.1 * size
        pen.box(0.06, y - 0.075 * size, 0.94, y, variant.colour)
    if difference == "emblem":
        _draw_seal(pen.at(*_corner(variant.place, tall), 0.15 * size), family.palette)


def _draw_badge(pen: Pen, design: Design, ring: Colour) -> None:
    pen.disc(0, 0, 1.0, darker(ring, 0.1))
    pen.disc(0, 0, 0.88, (255, 252, 245))
    draw_glyph(pen.at(0, 0.02, 0.58), design.variant.glyph, design.variant.colour)


def _draw_number(pen: Pen, number: str, palette: Palette) -> None:
    pen.disc(0, 0, 1.0, palette.ink)
    pen.disc(0, 0, 0.9, _WHITE)
    pen.disc(0, 0, 0.82, palette.second)
    colour = _legible(palette.second, palette)
    write(pen, number, 0, 0, 0.85, colour, weight=0.2, max_width=1.3)


def _draw_seal(pen: Pen, palette: Palette) -> None:
    turn = np.arange(32) * np.pi / 16
    radius = np.where(np.arange(32) % 2 == 0, 1.0, 0.84)
    rim = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
    pen.polygon(rim, palette.ink)
    pen.polygon(0.86 * rim, palette.accent)
    draw_glyph(pen.at(0, 0, 0.5), "star", palette.ink)


def _corner(place: int, tall: float) -> tuple[float, float]:
    corners = ((0.14, 0.42), (0.86, 0.42), (0.86, 0.68), (0.14, 0.68))
    x, y = corners[place % len(corners)]
    return x, y * tall


def _draw_word(pen: Pen, word: str, strip: Colour, palette: Palette) -> None:
    half = 0.07 + 0.5 * min(0.64, 0.1 * len(word))
    pen.pill(-half, -0.082, half, 0.082, darker(strip, 0.12))
    pen.pill(-half + 0.008, -0.074, half - 0.008, 0.074, strip)
    colour = _legible(strip, palette)
    write(pen, word, 0, 0, 0.097, colour, weight=0.19, max_width=2 * half - 0.1)


def _draw_surroundings(pen: Pen, design: Design, tall: float, left: float, right: float) -> None:
    """The weight on the front, and the print on whatever lies around it."""
    colour = _legible(_colour_at(pen.at(0.12, 0.965 * tall, 1.0)), design.family.palette)
    write(pen, design.family.weight, 0.14, 0.965 * tall, 0.032, colour, max_width=0.2)
    if right > 1.3:
        _draw_small_print(pen, 1.3, 0.45 * tall, 0.2, 0.3 * tall)
    if left < -0.3:
        _draw_barcode(pen, -0.3, 0.5 * tall, 0.16, 0.14 * tall)


def _draw_small_print(pen: Pen, x: float, y: float, half_width: float, half_height: float) -> None:
    pen.box(x - half_width, y - half_height, x + half_width, y + half_height, (250, 249, 245))
    rows = np.linspace(y - 0.8 * half_height, y + 0.8 * half_height, 9)
    lengths = (0.8, 0.7, 0.78, 0.5, 0.8, 0.75, 0.62, 0.8, 0.4)
    for row, length in zip(rows, lengths, strict=True):
        end = x - 0.8 * half_width + 2 * length * half_width
        pen.stroke([(x - 0.8 * half_width, row), (end, row)], 0.06 * half_height, (130, 130, 134))


def _draw_barcode(pen: Pen, x: float, y: float, half_width: float, half_height: float) -> None:
    pen.box(x - half_width, y - half_height, x + half_width, y + half_height, _WHITE)
    thick = 1.7 * half_width / 40
    for bar in np.flatnonzero(np.random.default_rng(5).random(40) < 0.5):
        start = x - 0.85 * half_width + thick * float(bar)
        pen.box(start, y - 0.8 * half_height, start + thick, y + 0.8 * half_height, _PRINT)


def _logo_plain(pen: Pen, brand: str, palette: Palette, room: float) -> None:
    colour = _legible(_colour_at(pen), palette)
    write(pen, brand, 0, 0, 0.19, colour, weight=0.2, max_width=room)


def _logo_arch(pen: Pen, brand: str, palette: Palette, room: float) -> None:
    halo = _WHITE if luminance(palette.ink) < 0.5 else darker(palette.base, 0.4)
    for weight, colour in ((0.42, halo), (0.2, palette.ink)):
        write(pen, brand, 0, 0, 0.18, colour, weight=weight, spacing=0.42 - weight, bend=0.45,
              max_width=room)  # fmt: skip


def _logo_slant(pen: Pen, brand: str, palette: Palette, room: float) -> None:
    shadow = darker(palette.base, 0.45)
    style = {"weight": 0.26, "slant": 0.3, "max_width": room - 0.08}
    write(pen, brand, 0.012, 0.014, 0.2, shadow, **style)
    write(pen, brand, 0, 0, 0.2, _legible(_colour_at(pen), palette), **style)


def _logo_band(pen: Pen, brand: str, palette: Palette, room: float) -> None:
    pen.box(-room, -0.15, room, 0.15, palette.accent)
    pen.box(-room, -0.13, room, 0.13, palette.second)
    colour = _legible(palette.second, palette)
    write(pen, brand, 0, 0, 0.16, colour, weight=0.22, max_width=0.92 * room)


def _logo_oval(pen: Pen, brand: str, palette: Palette, room: float) -> None:
    pen.polygon(oval(0, 0, 0.5 * room + 0.02, 0.175), palette.accent)
    pen.polygon(oval(0, 0, 0.5 * room, 0.155), palette.second)
    colour = _legible(palette.second, palette)
    write(pen, brand, 0, 0, 0.14, colour, weight=0.2, max_width=0.78 * room)


def _logo_ribbon(pen: Pen, brand: str, palette: Palette, room: float) -> None:
    half = 0.5 * room
    fold = darker(palette.second, 0.35)
    for side in (-1, 1):
        end = [(0.8, -0.06), (1.12, -0.06), (1.02, 0.06), (1.12, 0.18), (0.8, 0.18)]
        pen.polygon([(side * half * x, y) for x, y in end], fold)
    pen.box(-0.94 * half, -0.125, 0.94 * half, 0.125, palette.second)
    for y in (-0.105, 0.105):
        pen.stroke([(-0.9 * half, y), (0.9 * half, y)], 0.01, lighter(palette.second, 0.5))
    colour = _legible(palette.second, palette)
    write(pen, brand, 0, 0, 0.145, colour, weight=0.2, max_width=1.7 * half)


LOGOS: dict[str, Callable[[Pen, str, Palette, float], None]] = {
    "arch": _logo_arch,
    "band": _logo_band,
    "oval": _logo_oval,
    "plain": _logo_plain,
    "ribbon": _logo_ribbon,
    "slant": _logo_slant,
}


def _legible(background: Colour, palette: Palette) -> Colour:
    """The colour out of the palette, white and black print that stands out most."""
    choices = (palette.ink, palette.base, _WHITE, _PRINT)
    light = luminance(background)
    contrasts = [abs(luminance(choice) - light) for choice in choices]
    enough = [choice for choice, gap in zip(choices, contrasts, strict=True) if gap > 0.45]
    return enough[0] if enough else choices[int(np.argmax(contrasts))]


def _colour_at(pen: Pen) -> Colour:
    """The colour already on the canvas at the pen's origin."""
    height, width = pen.canvas.shape[:2]
    x = min(max(round(pen.origin[0]), 0), width - 1)
    y = min(max(round(pen.origin[1]), 0), height - 1)
    red, green, blue = (int(channel) for channel in pen.canvas[y, x])
    return red, green, blue
