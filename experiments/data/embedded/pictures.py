"""The illustrations that all members of a family carry, each inside (-1, -1) to (1, 1)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from experiments.data.embedded.design import Palette
from experiments.data.embedded.pen import Pen, Points, darker, lighter, mix, shifted, smooth

_MILK = (255, 252, 244)


def _splash(pen: Pen, palette: Palette) -> None:
    crown = smooth([(-1, 0.5), (-0.8, -0.5), (-0.5, 0.15), (-0.25, -0.8), (0.0, 0.1), (0.35, -0.95),
                    (0.5, 0.1), (0.9, -0.4), (1, 0.5), (0.5, 0.9), (-0.5, 0.9)])  # fmt: skip
    pen.polygon(shifted(crown, 0.05, 0.06), mix(palette.base, palette.ink, 0.3))
    pen.polygon(crown, _MILK)
    for x, y, radius in ((-0.7, -0.75, 0.09), (0.02, -0.6, 0.07), (0.72, -0.75, 0.11)):
        pen.disc(x, y, radius, _MILK)
    pen.oval(0, 0.6, 0.6, 0.16, mix(_MILK, palette.second, 0.18))


def _glass(pen: Pen, palette: Palette) -> None:
    pen.polygon([(-0.55, -0.8), (0.55, -0.8), (0.42, 0.95), (-0.42, 0.95)], (252, 252, 250))
    pen.polygon([(-0.46, -0.35), (0.46, -0.35), (0.36, 0.85), (-0.36, 0.85)], palette.second)
    pen.oval(0, -0.35, 0.46, 0.1, lighter(palette.second, 0.3))
    pen.stroke([(0.1, -0.35), (0.45, -1.15)], 0.1, palette.accent)
    pen.stroke([(-0.33, -0.2), (-0.25, 0.7)], 0.08, lighter(palette.second, 0.5))


def _bowl(pen: Pen, palette: Palette) -> None:
    rng = np.random.default_rng(7)
    pen.oval(0, 0.05, 0.95, 0.3, lighter(palette.accent, 0.25))
    for x, y in rng.uniform((-0.75, -0.22), (0.75, 0.2), (26, 2)):
        if (x / 0.85) ** 2 + (y / 0.32) ** 2 < 1:
            crumb = mix(palette.accent, palette.ink, float(rng.uniform(0.1, 0.5)))
            pen.oval(x, y, 0.14, 0.09, crumb, float(rng.uniform(0, 3)))
    rim = np.linspace(0, np.pi, 30)
    outside = np.stack([0.98 * np.cos(rim), 0.08 + 0.85 * np.sin(rim)], axis=1)
    inside = np.stack([0.98 * np.cos(rim), 0.06 + 0.26 * np.sin(rim)], axis=1)[::-1]
    pen.polygon(np.vstack([outside, inside]), (250, 248, 242))
    pen.stroke(inside, 0.06, darker(palette.second, 0.1))


def _medallion(pen: Pen, palette: Palette) -> None:
    pen.disc(0, 0, 0.95, palette.second)
    pen.disc(0, 0, 0.86, palette.base)
    pen.disc(0, 0, 0.8, mix(palette.base, palette.second, 0.35))
    for angle in np.arange(8) * np.pi / 4:
        pen.oval(0.42 * np.cos(angle), 0.42 * np.sin(angle), 0.3, 0.13, palette.accent, angle)
    pen.disc(0, 0, 0.16, palette.second)


def _leaves(pen: Pen, palette: Palette) -> None:
    green = mix((72, 128, 62), palette.second, 0.25)
    for x, angle, size in ((-0.5, -2.2, 0.75), (0.5, -0.94, 0.75), (0, -1.57, 0.95)):
        blade = _turned([(-1, 0), (-0.2, -0.42), (1, 0), (-0.2, 0.42)], angle)
        pen.at(x, 0.2, size).polygon(smooth([tuple(p) for p in blade]), green)
        vein = _turned([(-0.8, 0), (0.6, 0)], angle)
        pen.at(x, 0.2, size).stroke(vein, 0.06, lighter(green, 0.4))
        green = lighter(green, 0.12)


def _turned(points: list[tuple[float, float]], angle: float) -> Points:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[cos, sin], [-sin, cos]])


def _waves(pen: Pen, palette: Palette) -> None:
    x = np.linspace(-1.1, 1.1, 60)
    for level, colour in ((-0.45, palette.second), (0.0, palette.accent), (0.45, palette.second)):
        pen.stroke(np.stack([x, level + 0.2 * np.sin(5 * x)], axis=1), 0.2, colour)
    for x0, y0, radius in ((-0.6, -0.85, 0.1), (-0.1, -0.95, 0.07), (0.55, -0.8, 0.13)):
        pen.disc(x0, y0, radius, palette.accent)


def _hills(pen: Pen, palette: Palette) -> None:
    pen.disc(0.35, -0.25, 0.36, (250, 205, 80))
    for x, y, rx, ry, shade in ((-0.5, 0.75, 0.8, 0.7, 0.15), (0.5, 0.85, 0.85, 0.6, 0.4)):
        hill = np.linspace(np.pi, 2 * np.pi, 30)
        colour = mix((120, 178, 88), palette.second, shade)
        pen.polygon(np.stack([x + rx * np.cos(hill), y + ry * np.sin(hill)], axis=1), colour)
    pen.box(-1.3, 0.72, 1.35, 0.88, mix((98, 152, 72), palette.second, 0.4))


def _steam(pen: Pen, palette: Palette) -> None:
    cup = [(-0.7, 0.0), (0.6, 0.0), (0.5, 0.75), (-0.2, 0.9), (-0.6, 0.75)]
    pen.stroke(smooth([(0.55, 0.1), (1.05, 0.1), (0.95, 0.6), (0.5, 0.55)]), 0.12, palette.accent)
    pen.polygon(smooth([(-0.85, -0.1), (0.75, -0.1), *cup[2:]]), palette.accent)
    pen.oval(-0.05, 0.12, 0.52, 0.12, darker(palette.accent, 0.45))
    y = np.linspace(-0.1, -0.9, 20)
    for x in (-0.35, 0.0, 0.35):
        pen.stroke(np.stack([x + 0.1 * np.sin(7 * y), y], axis=1), 0.08, palette.second)


def _biscuit(pen: Pen, palette: Palette) -> None:
    crust = mix((214, 156, 84), palette.second, 0.15)
    for x, y in ((-0.38, -0.3), (0.36, 0.28)):
        for angle in np.arange(14) * np.pi / 7:
            pen.disc(x + 0.52 * np.cos(angle), y + 0.52 * np.sin(angle), 0.13, darker(crust, 0.2))
        pen.disc(x, y, 0.54, crust)
        for dx, dy in ((-0.2, -0.2), (0.2, -0.2), (0, 0.05), (-0.2, 0.28), (0.2, 0.28)):
            pen.disc(x + dx, y + dy, 0.06, darker(crust, 0.45))


def _sun(pen: Pen, palette: Palette) -> None:
    for angle in np.arange(16) * np.pi / 8:
        way = np.array([np.cos(angle), np.sin(angle)])
        pen.stroke(np.array([0.6 * way, 0.98 * way]), 0.1, palette.second)
    pen.disc(0, 0, 0.55, palette.second)
    pen.disc(0, 0, 0.44, palette.accent)


def _mountains(pen: Pen, palette: Palette) -> None:
    for x, top, half, shade in ((-0.45, -0.4, 0.7, 0.2), (0.4, -0.75, 0.8, 0.0)):
        rock = mix(palette.second, palette.ink, shade)
        pen.polygon([(x - half, 0.8), (x, top), (x + half, 0.8)], rock)
        snow = top + 0.42
        cap = [(x, top), (x + 0.22, snow), (x + 0.07, snow - 0.1), (x - 0.08, snow + 0.06),
               (x - 0.22, snow)]  # fmt: skip
        pen.polygon(cap, palette.accent)


def _bolt(pen: Pen, palette: Palette) -> None:
    bolt = np.array([(0.35, -1.1), (-0.6, 0.15), (-0.05, 0.15), (-0.35, 1.1), (0.65, -0.25),
                     (0.08, -0.25)])  # fmt: skip
    pen.polygon(bolt * 1.12, palette.accent)
    pen.polygon(bolt, palette.second)


def _wheatfield(pen: Pen, palette: Palette) -> None:
    grain = mix((214, 168, 72), palette.second, 0.3)
    for lean in (-0.55, 0.0, 0.55):
        pen.stroke([(0.15 * lean, 1.0), (lean, -0.7)], 0.06, darker(grain, 0.25))
        for step in np.linspace(0.35, 1.0, 5):
            x, y = 0.15 * lean + 0.85 * lean * step, 1.0 - 1.7 * step
            for side in (-1, 1):
                pen.oval(x + 0.13 * side, y, 0.19, 0.08, grain, -0.95 * side)


def _confetti(pen: Pen, palette: Palette) -> None:
    rng = np.random.default_rng(11)
    colours = (palette.second, palette.accent, lighter(palette.second, 0.4))
    for number, (x, y) in enumerate(rng.uniform(-1, 1, (30, 2))):
        radius = float(rng.uniform(0.07, 0.15))
        pen.oval(x, y, radius, 0.6 * radius, colours[number % 3], float(rng.uniform(0, 3)))


PICTURES: dict[str, Callable[[Pen, Palette], None]] = {
    "biscuit": _biscuit,
    "bolt": _bolt,
    "bowl": _bowl,
    "confetti": _confetti,
    "glass": _glass,
    "hills": _hills,
    "leaves": _leaves,
    "medallion": _medallion,
    "mountains": _mountains,
    "splash": _splash,
    "steam": _steam,
    "sun": _sun,
    "waves": _waves,
    "wheatfield": _wheatfield,
}
