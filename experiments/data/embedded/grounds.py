"""The patterns behind everything else on a label.

Each function fills the canvas from `left` to `right` and from 0 to `height`, in widths of the
label's front, which itself goes from 0 to 1. Turned packs have a ground that goes all around.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.data.embedded.design import Palette
from experiments.data.embedded.pen import Pen, Points, darker, lighter, luminance, mix

Ground = Callable[[Pen, Palette, float, float, float], None]


def _fade(pen: Pen, palette: Palette, left: float, right: float, height: float) -> None:
    steps = 24
    for step in range(steps):
        colour = mix(palette.base, palette.second, 0.55 * step / steps)
        pen.box(left, height * step / steps, right, height, colour)


def _split(pen: Pen, palette: Palette, left: float, right: float, height: float) -> None:
    pen.box(left, 0, right, height, palette.base)
    pen.box(left, 0.62 * height, right, height, palette.second)
    pen.box(left, 0.62 * height, right, 0.62 * height + 0.03, palette.accent)


def _wave(pen: Pen, palette: Palette, left: float, right: float, height: float) -> None:
    pen.box(left, 0, right, height, palette.base)
    for level, colour in ((0.68, palette.accent), (0.715, palette.second)):
        pen.polygon(_below(left, right, height, level * height, 0.05), colour)


def _below(left: float, right: float, height: float, level: float, swing: float) -> Points:
    """Everything below a wavy line at `level` that swings by `swing`."""
    x = np.linspace(left, right, 80)
    line = np.stack([x, level + swing * np.sin(2 * np.pi * x)], axis=1)
    return np.vstack([line, [(right, height), (left, height)]])


def _diagonal(pen: Pen, palette: Palette, left: float, right: float, height: float) -> None:
    pen.box(left, 0, right, height, palette.base)
    for drop, colour in ((0.0, palette.accent), (0.05, palette.second)):
        y = 0.72 * height + drop
        slope = 0.35 * min(1.0, height)
        pen.polygon(
            [(left, y - slope * (left - 0.5)), (right, y - slope * (right - 0.5)), (right, height),
             (right, height + 2), (left, height + 2)], colour)  # fmt: skip


def _stripes(pen: Pen, palette: Palette, left: float, right: float, height: float) -> None:
    pen.box(left, 0, right, height, palette.base)
    tint = mix(palette.base, palette.second, 0.18)
    for x in np.arange(np.floor(left * 8) / 8, right, 0.125):
        pen.box(float(x), 0, float(x) + 0.0625, height, tint)
    for y in (0.0, height - 0.05):
        pen.box(left, y, right, y + 0.05, palette.second)


def _dots(pen: Pen, palette: Palette, left: float, right: float, height: float) -> None:
    pen.box(left, 0, right, height, palette.base)
    tint = mix(palette.base, palette.second, 0.3)
    for row, y in enumerate(np.arange(0.06, height, 0.125)):
        for x in np.arange(np.floor(left * 8) / 8 + 0.0625 * (row % 2), right, 0.125):
            pen.disc(float(x), float(y), 0.02, tint)


def _rays(pen: Pen, palette: Palette, left: float, right: float, height: float) -> None:
    pen.box(left, 0, right, height, palette.base)
    glow = lighter if luminance(palette.base) < 0.75 else darker
    tint = glow(palette.base, 0.14)
    for start in np.arange(12) * np.pi / 6:
        turn = np.array([start, start + np.pi / 12])
        rim = 3 * np.stack([np.cos(turn), np.sin(turn)], axis=1) + (0.5, 0.5 * height)
        pen.polygon(np.vstack([rim, [(0.5, 0.5 * height)]]), tint)
    pen.box(left, height - 0.09, right, height, palette.second)


def _arch(pen: Pen, palette: Palette, left: float, right: float, height: float) -> None:
    pen.box(left, 0, right, height, palette.base)
    pen.box(left, 0.86 * height, right, height, palette.second)
    for grow, colour in ((0.03, palette.accent), (0.0, palette.second)):
        pen.oval(0.5, height, 0.62 + grow, 0.4 * height + grow, colour)


def _band(pen: Pen, palette: Palette, left: float, right: float, height: float) -> None:
    pen.box(left, 0, right, height, palette.base)
    for y, thick in ((0.0, 0.05), (0.92 * height, 0.08 * height)):
        pen.box(left, y, right, y + thick, palette.second)
    pen.box(left, 0.065, right, 0.085, palette.accent)
    pen.box(left, 0.92 * height - 0.035, right, 0.92 * height - 0.015, palette.accent)


GROUNDS: dict[str, Ground] = {
    "arch": _arch,
    "band": _band,
    "diagonal": _diagonal,
    "dots": _dots,
    "fade": _fade,
    "rays": _rays,
    "split": _split,
    "stripes": _stripes,
    "wave": _wave,
}
