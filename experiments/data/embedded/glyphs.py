"""The little pictures on flavour badges: fruit, leaves, drops, each drawn in its own colour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.data.embedded.pen import Colour, Pen, darker, lighter, shifted, smooth

_LEAF = (70, 140, 60)
_STEM = (96, 66, 40)
_CREAM = (255, 246, 224)


def draw_glyph(pen: Pen, glyph: str, colour: Colour) -> None:
    """Draws the picture named `glyph` inside the square from (-1, -1) to (1, 1).

    Raises:
        KeyError: there is no such picture; `GLYPHS` names them all.
    """
    GLYPHS[glyph](pen, colour)


def _apple(pen: Pen, colour: Colour) -> None:
    pen.stroke([(0, -0.4), (0.1, -0.9)], 0.13, _STEM)
    _leaf_shape(pen.at(0.38, -0.72, 0.36), _LEAF, -0.5)
    for x in (-0.3, 0.3):
        pen.oval(x, 0.2, 0.56, 0.68, colour)
    pen.oval(-0.42, -0.05, 0.14, 0.24, lighter(colour, 0.55), 0.5)


def _pear(pen: Pen, colour: Colour) -> None:
    pen.stroke([(0, -0.6), (0.12, -1.0)], 0.13, _STEM)
    body = [(0, -0.95), (0.5, -0.6), (0.45, 0), (0.95, 0.45), (0.6, 1.05), (-0.6, 1.05),
            (-0.95, 0.45), (-0.45, 0), (-0.5, -0.6)]  # fmt: skip
    pen.polygon(smooth(body), colour)
    pen.oval(-0.3, 0.35, 0.13, 0.28, lighter(colour, 0.55), 0.3)


def _citrus(pen: Pen, colour: Colour) -> None:
    pen.disc(0, 0, 0.96, colour)
    pen.disc(0, 0, 0.8, _CREAM)
    for start in np.arange(8) * np.pi / 4:
        turn = start + np.linspace(0.09, np.pi / 4 - 0.09, 6)
        rim = 0.7 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        tip = 0.1 * np.array([[np.cos(start + np.pi / 8), np.sin(start + np.pi / 8)]])
        pen.polygon(np.vstack([rim, tip]), lighter(colour, 0.12))


def _lemon(pen: Pen, colour: Colour) -> None:
    pen.polygon(smooth([(-1.0, 0.5), (-0.8, -0.1), (-0.1, -0.75), (0.7, -0.75), (1.05, -0.75),
                        (0.85, -0.1), (0.15, 0.75), (-0.6, 0.8)]), colour)  # fmt: skip
    _leaf_shape(pen.at(-0.55, -0.6, 0.42), _LEAF, 0.6)
    pen.oval(0.2, -0.35, 0.3, 0.1, lighter(colour, 0.65), -0.6)


def _cherry(pen: Pen, colour: Colour) -> None:
    for x, y in ((-0.48, 0.45), (0.5, 0.55)):
        pen.stroke([(x, y), (x * 0.4, -0.3), (0.15, -0.9)], 0.1, _LEAF)
    for x, y in ((-0.48, 0.48), (0.5, 0.55)):
        pen.disc(x, y, 0.44, colour)
        pen.disc(x - 0.14, y - 0.16, 0.11, lighter(colour, 0.6))
    _leaf_shape(pen.at(0.5, -0.75, 0.4), _LEAF, 0.2)


def _grapes(pen: Pen, colour: Colour) -> None:
    pen.stroke([(0, -0.5), (0.05, -1.0)], 0.12, _STEM)
    _leaf_shape(pen.at(0.42, -0.8, 0.4), _LEAF, -0.3)
    for row, count in enumerate((3, 2, 1)):
        for column in range(count):
            x, y = (column - (count - 1) / 2) * 0.56, -0.3 + 0.5 * row
            pen.disc(x, y, 0.34, darker(colour, 0.15))
            pen.disc(x - 0.04, y - 0.04, 0.27, colour)
            pen.disc(x - 0.12, y - 0.12, 0.08, lighter(colour, 0.6))


def _strawberry(pen: Pen, colour: Colour) -> None:
    pen.polygon(smooth([(-0.9, -0.6), (0.9, -0.6), (0.85, 0.3), (0, 1.2), (-0.85, 0.3)]), colour)
    for x, y in ((-0.4, -0.1), (0, -0.15), (0.4, -0.1), (-0.2, 0.25), (0.2, 0.25), (0, 0.6)):
        pen.oval(x, y, 0.06, 0.1, lighter(colour, 0.75))
    for angle in (-2.5, -2.0, -1.57, -1.1, -0.6):
        _leaf_shape(pen.at(0.35 * np.cos(angle), -0.55 + 0.2 * np.sin(angle), 0.36), _LEAF, angle)


def _leaf(pen: Pen, colour: Colour) -> None:
    _leaf_shape(pen.at(-0.28, -0.12, 0.95), colour, -1.05)
    _leaf_shape(pen.at(0.4, 0.35, 0.68), darker(colour, 0.2), -0.35)


def _leaf_shape(pen: Pen, colour: Colour, angle: float) -> None:
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    blade = smooth([(-1, 0), (-0.3, -0.62), (0.5, -0.42), (1.15, 0), (0.5, 0.42), (-0.3, 0.62)])
    pen.polygon(blade @ turn, colour)
    pen.stroke(np.array([(-0.85, 0), (0.6, 0)]) @ turn, 0.09, lighter(colour, 0.45))


def _flower(pen: Pen, colour: Colour) -> None:
    for angle in np.arange(6) * np.pi / 3:
        x, y = 0.52 * np.cos(angle), 0.52 * np.sin(angle)
        pen.oval(x, y, 0.44, 0.3, darker(colour, 0.18), angle)
        pen.oval(x, y, 0.38, 0.24, colour, angle)
    pen.disc(0, 0, 0.27, (240, 190, 50) if colour[2] > 60 else _CREAM)


def _beans(pen: Pen, colour: Colour) -> None:
    for x, y, angle in ((-0.34, -0.2, 0.9), (0.38, 0.28, 0.5)):
        pen.oval(x, y, 0.66, 0.42, darker(colour, 0.25), angle)
        pen.oval(x, y, 0.6, 0.36, colour, angle)
        along = np.linspace(-0.5, 0.5, 9)
        curve = np.stack([along, 0.1 * np.sin(6 * along)], axis=1)
        cos, sin = np.cos(angle), np.sin(angle)
        turned = curve @ np.array([[cos, sin], [-sin, cos]])
        pen.stroke(shifted(turned, x, y), 0.1, lighter(colour, 0.5))


def _nut(pen: Pen, colour: Colour) -> None:
    pen.polygon(smooth([(0, -1.15), (0.75, -0.3), (0.8, 0.55), (0, 1.15), (-0.8, 0.55),
                        (-0.75, -0.3)]), colour)  # fmt: skip
    for x in (-0.3, 0.0, 0.3):
        pen.stroke([(0.3 * x, -0.6), (x, 0.1), (0.8 * x, 0.7)], 0.07, darker(colour, 0.35))


def _drop(pen: Pen, colour: Colour) -> None:
    pen.polygon(smooth([(0, -1.3), (0.35, -0.5), (0.9, 0.3), (0.55, 1.05), (-0.55, 1.05),
                        (-0.9, 0.3), (-0.35, -0.5)]), colour)  # fmt: skip
    pen.oval(-0.28, 0.3, 0.12, 0.28, lighter(colour, 0.7), 0.3)


def _wheat(pen: Pen, colour: Colour) -> None:
    pen.stroke([(0, -0.7), (0, 1.0)], 0.1, darker(colour, 0.3))
    pen.oval(0, -0.75, 0.16, 0.28, colour)
    for y in (-0.4, 0.0, 0.4):
        for side in (-1, 1):
            pen.oval(0.32 * side, y, 0.36, 0.16, colour, -0.8 * side)


def _chilli(pen: Pen, colour: Colour) -> None:
    pen.polygon(smooth([(-0.95, -0.75), (-0.3, -0.75), (0.35, 0.0), (1.0, 0.75), (1.0, 1.0),
                        (0.4, 0.9), (-0.5, 0.4), (-1.0, -0.3)]), colour)  # fmt: skip
    pen.stroke([(-0.6, -0.55), (-0.75, -0.95)], 0.2, _LEAF)
    pen.stroke([(-0.45, -0.2), (0.15, 0.4)], 0.1, lighter(colour, 0.6))


def _cheese(pen: Pen, colour: Colour) -> None:
    pen.polygon([(-0.95, 0.05), (0.9, -0.65), (0.95, 0.0)], lighter(colour, 0.45))
    pen.polygon([(-0.95, 0.05), (0.95, 0.0), (0.95, 0.7), (-0.95, 0.75)], colour)
    for x, y, radius in ((-0.45, 0.4, 0.16), (0.15, 0.3, 0.12), (0.55, 0.48, 0.17)):
        pen.disc(x, y, radius, darker(colour, 0.25))


def _flake(pen: Pen, colour: Colour) -> None:
    for angle in np.arange(6) * np.pi / 3:
        way = np.array([np.sin(angle), -np.cos(angle)])
        across = np.array([way[1], -way[0]])
        pen.stroke(np.array([0 * way, 0.95 * way]), 0.13, colour)
        tips = np.array([0.8 * way + 0.25 * across, 0.55 * way, 0.8 * way - 0.25 * across])
        pen.stroke(tips, 0.1, colour)


def _star(pen: Pen, colour: Colour) -> None:
    turn = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    pen.polygon(np.stack([radius * np.sin(turn), -radius * np.cos(turn)], axis=1), colour)


def _mushroom(pen: Pen, colour: Colour) -> None:
    pen.box(-0.26, 0, 0.26, 0.85, _CREAM)
    pen.oval(0, 0.85, 0.26, 0.12, _CREAM)
    dome = np.linspace(np.pi, 2 * np.pi, 24)
    pen.polygon(np.stack([0.95 * np.cos(dome), 0.15 + 0.95 * np.sin(dome)], axis=1), colour)
    for x, y, radius in ((-0.45, -0.25, 0.14), (0.1, -0.45, 0.17), (0.5, -0.1, 0.12)):
        pen.disc(x, y, radius, lighter(colour, 0.65))


def _banana(pen: Pen, colour: Colour) -> None:
    turn = np.linspace(0.1, 2.5, 20)
    outer = np.stack([np.cos(turn), 0.95 * np.sin(turn) - 0.2], axis=1)
    inner = np.stack([0.1 + 0.75 * np.cos(turn), 0.52 * np.sin(turn) - 0.25], axis=1)
    pen.polygon(np.vstack([outer, inner[::-1]]), colour)
    pen.stroke([outer[0], inner[0]], 0.16, _STEM)
    pen.stroke(outer[3:-3] * 0.9, 0.05, darker(colour, 0.25))


def _fish(pen: Pen, colour: Colour) -> None:
    pen.polygon([(0.4, 0), (1.0, -0.5), (0.9, 0), (1.0, 0.5)], darker(colour, 0.2))
    pen.oval(-0.15, 0, 0.8, 0.46, colour)
    pen.oval(-0.15, 0.14, 0.6, 0.22, lighter(colour, 0.5))
    pen.disc(-0.58, -0.1, 0.1, (20, 20, 30))


def _flame(pen: Pen, colour: Colour) -> None:
    flame = smooth([(0.1, -1.25), (0.3, -0.5), (0.8, 0.0), (0.75, 0.95), (-0.75, 0.95), (-0.8, 0.0),
                    (-0.4, -0.2), (-0.2, -0.6)])  # fmt: skip
    pen.polygon(flame, colour)
    pen.polygon(shifted(0.5 * flame, 0, 0.42), lighter(colour, 0.6))


def _sun(pen: Pen, colour: Colour) -> None:
    for angle in np.arange(10) * np.pi / 5:
        way = np.array([np.cos(angle), np.sin(angle)])
        pen.stroke(np.array([0.68 * way, 0.95 * way]), 0.14, colour)
    pen.disc(0, 0, 0.52, colour)


def _carrot(pen: Pen, colour: Colour) -> None:
    for angle in (-1.0, -0.6, -0.2):
        _leaf_shape(pen.at(0.45 + 0.2 * np.cos(angle), -0.6 + 0.2 * np.sin(angle), 0.36),
                    _LEAF, angle)  # fmt: skip
    pen.polygon(smooth([(0.15, -0.75), (0.75, -0.15), (0.2, 0.5), (-1.0, 1.15), (-0.45, 0.0)]),
                colour)  # fmt: skip
    for x, y in ((0.1, -0.1), (-0.2, 0.3)):
        pen.stroke([(x, y), (x + 0.22, y + 0.12)], 0.08, darker(colour, 0.25))


def _shell(pen: Pen, colour: Colour) -> None:
    pen.disc(0, 0, 0.9, darker(colour, 0.35))
    pen.disc(0.08, 0.02, 0.72, _CREAM)
    pen.disc(0.2, 0.05, 0.5, lighter(colour, 0.15))


def _bulb(pen: Pen, colour: Colour) -> None:
    pen.polygon(smooth([(0, -1.3), (0.2, -0.5), (0.95, 0.1), (0.6, 1.0), (-0.6, 1.0), (-0.95, 0.1),
                        (-0.2, -0.5)]), colour)  # fmt: skip
    for x in (-0.35, 0.0, 0.35):
        pen.stroke([(0.1 * x, -0.5), (x, 0.2), (0.5 * x, 0.8)], 0.07, darker(colour, 0.22))


GLYPHS: dict[str, Callable[[Pen, Colour], None]] = {
    "apple": _apple,
    "banana": _banana,
    "beans": _beans,
    "bulb": _bulb,
    "carrot": _carrot,
    "cheese": _cheese,
    "cherry": _cherry,
    "chilli": _chilli,
    "citrus": _citrus,
    "drop": _drop,
    "fish": _fish,
    "flake": _flake,
    "flame": _flame,
    "flower": _flower,
    "grapes": _grapes,
    "leaf": _leaf,
    "lemon": _lemon,
    "mushroom": _mushroom,
    "nut": _nut,
    "pear": _pear,
    "shell": _shell,
    "star": _star,
    "strawberry": _strawberry,
    "sun": _sun,
    "wheat": _wheat,
}
