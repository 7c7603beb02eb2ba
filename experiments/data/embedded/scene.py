"""What is around a product in a shop: shelves, neighbours, hands, price tags."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from experiments.data.embedded.catalogue import NEIGHBOURS, catalogue
from experiments.data.embedded.lettering import write
from experiments.data.embedded.pen import (
    Colour,
    Image,
    Pen,
    blank,
    darker,
    lighter,
    mix,
    oval,
    rgb,
    shifted,
    smooth,
    vivid,
)
from experiments.data.embedded.render import Pose, Sprite, render

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels

_WALLS = [rgb(code) for code in ("3A3D42", "6E6A64", "B9B4A8", "D9DCDD", "2B3440", "8A7B68")]
_RAILS = [rgb(code) for code in ("E9E9E4", "C8102E", "F2C200", "1F4E9A", "9AA0A6", "2E7D4F")]
_SKIN = [rgb(code) for code in ("F0C3A0", "D9A27C", "B57B52", "8A5A3A", "5E3B26")]
_VIEWS = (-0.32, 0.0, 0.28)  # the turns a neighbour is ever seen at


def shelf(rng: np.random.Generator, side: int, product: Box) -> Image:
    """A shelf for the product to stand on, with its neighbours.

    Args:
        rng: where its colours and neighbours come from.
        side: of the image, in pixels.
        product: where the product is going to stand.

    Returns:
        RGB uint8 [side, side, 3].
    """
    wall = _WALLS[rng.integers(len(_WALLS))]
    scene = blank(side, side, wall)
    pen = Pen(scene, side)
    _draw_wall(pen, wall, rng)
    left, top, right, bottom = (edge / side for edge in product)
    floor = min(bottom - 0.05, 0.97)
    board = lighter(mix(wall, (225, 225, 222), 0.6), 0.1)
    pen.box(0, floor - 0.05, 1, 1, darker(board, 0.25))
    pen.box(0, floor, 1, 1, board)
    height = bottom - top
    for edge, way in ((left, -1), (right, 1)):
        size = height * rng.uniform(0.72, 1.08)
        gap = rng.uniform(-0.06, 0.07)
        _stand_beside(scene, rng, edge + way * gap, way, bottom - rng.uniform(0.0, 0.04), size)
    _draw_rail(pen, bottom + rng.uniform(0.0, 0.05), rng)
    return scene


def aisle(rng: np.random.Generator, side: int) -> Image:
    """The shop out of focus, as behind a product that someone holds: RGB uint8 [side, side, 3]."""
    small = max(16, side // 4)
    scene = blank(small, small, _WALLS[rng.integers(len(_WALLS))])
    pen = Pen(scene, small)
    for y in (0.0, 0.34, 0.68):
        x = -0.1
        while x < 1:
            width = rng.uniform(0.08, 0.2)
            colour = vivid(rng.random(), rng.uniform(0.2, 0.8), rng.uniform(0.4, 0.95))
            pen.box(x, y + rng.uniform(0.02, 0.12), x + width, y + 0.29, colour)
            x += width + 0.02
        pen.box(0, y + 0.29, 1, y + 0.34, (205, 205, 200))
    soft = cv2.GaussianBlur(scene, (0, 0), small * rng.uniform(0.03, 0.07))
    return np.asarray(cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def basket(rng: np.random.Generator, side: int) -> Image:
    """The bottom of a shopping basket or a counter: RGB uint8 [side, side, 3]."""
    base = vivid(rng.random(), rng.uniform(0.05, 0.55), rng.uniform(0.35, 0.85))
    scene = blank(side, side, base)
    pen = Pen(scene, side)
    if rng.random() < 0.5:
        return scene
    lean = rng.uniform(-0.3, 0.3)
    step = rng.uniform(0.09, 0.16)
    for line in np.arange(-0.5, 1.5, step):
        for path in ([(line, 0), (line + lean, 1)], [(0, line), (1, line - lean)]):
            pen.stroke(shifted(path, 0.008, 0.008), 0.022, darker(base, 0.4))
            pen.stroke(path, 0.02, lighter(base, 0.25))
    return scene


def crowd(scene: Image, rng: np.random.Generator, product: Box) -> None:
    """Puts a neighbour in front of one of the product's edges, in place."""
    side = len(scene)
    left, top, right, bottom = (edge / side for edge in product)
    way = 1 if rng.random() < 0.5 else -1
    overlap = rng.uniform(0.04, 0.16) * (right - left)
    edge = right - overlap if way > 0 else left + overlap
    size = (bottom - top) * rng.uniform(0.55, 1.05)
    _stand_beside(scene, rng, edge, way, bottom + rng.uniform(0.0, 0.05), size)


def hold(scene: Image, rng: np.random.Generator, product: Box) -> None:
    """Draws the fingers of a hand that holds the product from below or from a side, in place."""
    side = len(scene)
    left, top, right, bottom = (edge / side for edge in product)
    skin = _SKIN[rng.integers(len(_SKIN))]
    pen = Pen(scene, side)
    way = 1 if rng.random() < 0.5 else -1
    edge = right if way > 0 else left
    reach = rng.uniform(0.1, 0.24) * (right - left)
    start = rng.uniform(top + 0.45 * (bottom - top), bottom - 0.22)
    for number in range(int(rng.integers(2, 5))):
        y = start + 0.105 * number + rng.uniform(-0.01, 0.01)
        tip = edge - way * reach * rng.uniform(0.75, 1.1)
        _draw_finger(pen, (edge + way * 0.5, y + rng.uniform(0.0, 0.2)), (tip, y), skin)


def tag(scene: Image, rng: np.random.Generator, product: Box) -> None:
    """Hangs a price tag over the product's foot, in place."""
    side = len(scene)
    left, _, right, bottom = (edge / side for edge in product)
    paper = ((255, 255, 252), (255, 226, 64), (250, 250, 246))[rng.integers(3)]
    width, height = rng.uniform(0.24, 0.4), rng.uniform(0.12, 0.17)
    x = rng.uniform(left, right)
    y = bottom - rng.uniform(0.0, 0.08)
    lean = rng.normal(0, 0.05)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    corners = corners @ np.array([[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]])
    pen = Pen(scene, side).at(x, y, 1.0)
    pen.polygon(shifted(corners, 0.012, 0.012), darker(paper, 0.65))
    pen.polygon(corners, paper)
    price = f"{rng.integers(0, 20)}.{rng.integers(0, 100):02d}"
    write(pen, price, 0.1 * width, 0.06 * height, 0.5 * height, (26, 26, 28), weight=0.2,
          max_width=0.62 * width)  # fmt: skip
    pen.stroke(
        [(-0.42 * width, -0.36 * height), (0.1 * width, -0.36 * height)], 0.012, (90, 90, 92)
    )


def offer(scene: Image, rng: np.random.Generator, product: Box) -> None:
    """Sticks a small round offer somewhere on the product, in place."""
    side = len(scene)
    left, top, right, bottom = (edge / side for edge in product)
    x = rng.uniform(left + 0.1 * (right - left), right - 0.1 * (right - left))
    y = rng.uniform(top + 0.1 * (bottom - top), bottom - 0.1 * (bottom - top))
    pen = Pen(scene, side).at(x, y, rng.uniform(0.055, 0.085))
    colour = ((232, 60, 40), (255, 140, 0), (240, 200, 0))[rng.integers(3)]
    pen.disc(0, 0, 1.0, darker(colour, 0.15))
    pen.disc(0, 0, 0.92, colour)
    write(pen, f"-{5 * rng.integers(2, 11)}%", 0, 0, 0.62, (255, 255, 255), max_width=1.5)


def tray(scene: Image, rng: np.random.Generator, product: Box) -> None:
    """Puts the front of a cardboard tray before the product's foot, in place."""
    side = len(scene)
    top = product[3] / side - rng.uniform(0.05, 0.13)
    card = mix((176, 132, 88), (206, 168, 122), float(rng.random()))
    pen = Pen(scene, side)
    dip = smooth([(0, top - 0.06), (0.22, top - 0.05), (0.3, top + 0.02), (0.7, top + 0.02),
                  (0.78, top - 0.05), (1, top - 0.06)], closed=False)  # fmt: skip
    pen.polygon(np.vstack([shifted(dip, 0, -0.01), [(1, 1), (0, 1)]]), lighter(card, 0.3))
    pen.polygon(np.vstack([dip, [(1, 1), (0, 1)]]), card)


def paste(scene: Image, sprite: Sprite) -> None:
    """Puts a sprite over a scene of the same size, in place."""
    cv2.copyTo(sprite.colour, sprite.mask, scene)


def ground_shadow(scene: Image, product: Box, strength: float) -> None:
    """Darkens the scene under and beside the product that is going to stand there, in place."""
    side = len(scene)
    small = max(16, side // 6)
    left, _, right, bottom = (edge / side for edge in product)
    shade = np.zeros((small, small), np.float32)
    middle, half = (left + right) / 2, (right - left) / 2
    outline = small * oval(middle, bottom - 0.02, half + 0.03, 0.05)
    cv2.fillPoly(shade, [np.round(outline * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    soft = cv2.resize(cv2.GaussianBlur(shade, (0, 0), 0.025 * small), (side, side))
    near = slice(max(0, product[3] - side // 4), product[3] + side // 4)
    scene[near] = (scene[near] * (1 - strength * soft[near])[..., None]).astype(np.uint8)


def _draw_wall(pen: Pen, wall: Colour, rng: np.random.Generator) -> None:
    """Back panels, darker towards the shelf above."""
    for step in range(10):
        pen.box(0, 0.05 * step, 1, 1, darker(wall, 0.5 - 0.05 * step))
    seam = rng.uniform(0, 0.4)
    for x in (seam, seam + 0.45):
        pen.stroke([(x, 0), (x, 1)], 0.008, darker(wall, 0.4))
    if rng.random() < 0.5:
        edge = rng.uniform(0.0, 0.09)
        pen.box(0, 0, 1, edge, darker(mix(wall, (200, 200, 198), 0.5), 0.1))
        pen.box(0, edge, 1, edge + 0.03, darker(wall, 0.65))


def _draw_rail(pen: Pen, y: float, rng: np.random.Generator) -> None:
    """The front edge of the board, with price labels in it."""
    rail = _RAILS[rng.integers(len(_RAILS))]
    pen.box(0, y, 1, 1, rail)
    pen.box(0, y, 1, y + 0.012, lighter(rail, 0.4))
    x = rng.uniform(-0.1, 0.3)
    while x < 1:
        pen.box(x, y + 0.025, x + 0.2, y + 0.12, (250, 250, 246))
        write(pen, f"{rng.integers(1, 10)}.{rng.integers(10, 100)}", x + 0.1, y + 0.07, 0.05,
              (30, 30, 34))  # fmt: skip
        x += rng.uniform(0.3, 0.6)


def _stand_beside(
    scene: Image, rng: np.random.Generator, edge: float, way: int, bottom: float, height: float
) -> None:
    """Puts some other product's inner edge at x = `edge`, standing at y = `bottom`."""
    side = len(scene)
    designs = catalogue(NEIGHBOURS)
    number, view = int(rng.integers(len(designs))), int(rng.integers(len(_VIEWS)))
    sprite = _neighbour(number, view, side)
    left, top, right, foot = sprite.box()
    scale = height * side / (foot - top)
    shift = edge * side - scale * (left if way > 0 else right)
    matrix = np.array([[scale, 0, shift], [0, scale, bottom * side - scale * foot]])
    colour = cv2.warpAffine(sprite.colour, matrix, (side, side), flags=cv2.INTER_LINEAR)
    mask = cv2.warpAffine(sprite.mask, matrix, (side, side), flags=cv2.INTER_NEAREST)
    cv2.copyTo(cv2.convertScaleAbs(colour, alpha=rng.uniform(0.65, 1.0)), mask, scene)


@lru_cache(maxsize=64)
def _neighbour(number: int, view: int, side: int) -> Sprite:
    return render(catalogue(NEIGHBOURS)[number], Pose(yaw=_VIEWS[view], pitch=0.08), side)


def _draw_finger(
    pen: Pen, root: tuple[float, float], tip: tuple[float, float], skin: Colour
) -> None:
    bend = ((root[0] + tip[0]) / 2, min(root[1], tip[1]) - 0.015)
    path = smooth([root, bend, tip], closed=False)
    for width, down, colour in ((0.112, 0.012, darker(skin, 0.5)), (0.104, 0.0, skin),
                                (0.05, -0.016, lighter(skin, 0.16))):  # fmt: skip
        pen.stroke(shifted(path, 0, down), width, colour)
    inwards = 1 if root[0] > tip[0] else -1
    pen.oval(tip[0] + 0.012 * inwards, tip[1] - 0.008, 0.03, 0.026, mix(skin, (255, 214, 204), 0.5))
