"""The two kinds of photos: the packshot a shop's catalogue has, and the one taken in the store."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from experiments.data.generated.camera import Pixels, take_phone_photo, take_studio_photo
from experiments.data.generated.catalogue import NEIGHBOURS, Design, catalogue
from experiments.data.generated.drawing import BLACK, WHITE, Canvas, Colour, darker, lighter, rgb
from experiments.data.generated.pack import view

Area = tuple[float, float, float, float]  # left, top, right, bottom as shares of the photo's side
Rng = np.random.Generator

_STUDIO_SUPERSAMPLING = 3
_STORE_SUPERSAMPLING = 2
_WALLS = [rgb(code) for code in ("3A3D42", "6E6A64", "B9B4A8", "D9DCDD", "2B3440", "8A7B68")]
_RAILS = [rgb(code) for code in ("E9E9E4", "C8102E", "F2C200", "1F4E9A", "9AA0A6", "2E7D4F")]
_SKIN = [rgb(code) for code in ("F0C3A0", "D9A27C", "B57B52", "8A5A3A", "5E3B26")]
_PAPERS = [rgb(code) for code in ("FFFFFC", "FFE240", "FAFAF6")]
_OFFERS = [rgb(code) for code in ("E83C28", "FF8C00", "C81E5A")]
_BASKETS = [rgb(code) for code in ("8C8F93", "B23A48", "3E6FA3", "5B8C5A", "C9B79C", "6B5876")]


def packshot(design: Design, rng: Rng, size: int) -> Pixels:
    """Return a clean photo of a product on a light ground, RGB uint8 [size, size, 3]."""
    side = _STUDIO_SUPERSAMPLING * size
    pack = view(design, rng.uniform(-0.42, 0.42), rng.uniform(0.02, 0.2), side)
    middle, extent = rng.uniform(0.48, 0.52, 2), rng.uniform(0.84, 0.92)
    product, area = _place(pack, side, middle, extent, rng.normal(0, 0.012))
    paper = int(rng.integers(243, 256))
    scene = Image.new("RGB", (side, side), (paper, paper, paper))
    _cast_shadow(scene, area, 0.3)
    scene.paste(product, mask=product)
    return take_studio_photo(_shrunk(scene, size), rng)


def store_photo(design: Design, rng: Rng, size: int) -> Pixels:
    """Return a hurried phone photo of a product in the store, RGB uint8 [size, size, 3]."""
    side = _STORE_SUPERSAMPLING * size
    where = rng.choice(["shelf", "hand", "basket"], p=[0.66, 0.2, 0.14])
    yaw = float(np.clip(rng.normal(0, 0.27), -0.6, 0.6))
    pack = view(design, yaw, rng.uniform(0.0, 0.3), side)
    middle, extent = 0.5 + rng.normal(0, 0.03, 2), rng.uniform(0.84, 1.1)
    roll = rng.normal(0, 0.03 if where == "shelf" else 0.17)
    product, area = _place(pack, side, middle, extent, roll, rng.uniform(-0.04, 0.12))
    scene = _blurred_shop(rng, side)
    canvas = Canvas(scene, side)
    if where != "hand":
        (_draw_shelf if where == "shelf" else _draw_basket)(canvas, rng, area)
        _cast_shadow(scene, area, rng.uniform(0.3, 0.6))
    scene.paste(product, mask=product)
    if where == "hand" or rng.random() < 0.04:
        _draw_fingers(canvas, rng, area)
    if where == "shelf" and rng.random() < 0.3:
        _stand_beside(canvas, rng, area, int(rng.choice([-1, 1])), rng.uniform(0.02, 0.1))
    if where == "shelf" and rng.random() < 0.35:
        _hang_price(canvas, rng, area)
    if rng.random() < 0.12:
        _stick_offer(canvas, rng, area)
    return take_phone_photo(_tilted(_shrunk(scene, size), rng.normal(0, 4.0)), rng)


def _place(
    pack: Pixels,
    side: int,
    middle: NDArray[np.float64],
    extent: float,
    roll: float,
    lean: float = 0.0,
) -> tuple[Image.Image, Area]:
    """Return a pack within a transparent photo, and where it is.

    Args:
        pack: RGB and opacity, uint8 [H, W, 4].
        side: of the photo in pixels.
        middle: x and y of the pack's middle as shares of the side.
        extent: the pack's longer side as a share of the photo's.
        roll: turn in radians.
        lean: share by which its top is narrower, as seen from below.
    """
    height, width = pack.shape[:2]
    flat = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    shape = (flat - (width / 2, height / 2)) * (extent / max(width, height))
    shape[:2, 0] *= 1 - lean
    cos, sin = np.cos(roll), np.sin(roll)
    corners = shape @ np.array([(cos, sin), (-sin, cos)]) + middle
    matrix = cv2.getPerspectiveTransform(flat - 0.5, (corners * side - 0.5).astype(np.float32))
    placed = cv2.warpPerspective(pack, matrix, (side, side))
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return Image.fromarray(placed), (left, top, right, bottom)


def _cast_shadow(scene: Image.Image, area: Area, strength: float) -> None:
    """Darken the scene under and beside the product that is going to stand there."""
    small = max(16, scene.width // 6)
    shade = Image.new("L", (small, small))
    left, _, right, bottom = area
    edges = [left - 0.03, bottom - 0.07, right + 0.03, bottom + 0.03]
    ImageDraw.Draw(shade).ellipse([small * edge for edge in edges], round(255 * strength))
    soft = shade.filter(ImageFilter.GaussianBlur(0.025 * small))
    scene.paste((0, 0, 0), mask=Image.fromarray(cv2.resize(np.asarray(soft), scene.size)))


def _blurred_shop(rng: Rng, side: int) -> Image.Image:
    """Return the shop out of focus, as behind a product that someone holds."""
    colours = rng.integers(60, 190, (6, 6, 1)) + rng.integers(-45, 46, (6, 6, 3))
    return Image.fromarray(
        cv2.resize(colours.astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    )


def _draw_shelf(canvas: Canvas, rng: Rng, area: Area) -> None:
    """Draw a shelf for the product to stand on, with its neighbours and price labels."""
    bottom = area[3]
    wall, rail = _pick(_WALLS, rng), _pick(_RAILS, rng)
    for step in range(10):  # darker towards the shelf above
        canvas.box(0.5, 0.5 + 0.05 * step, 1, 1, darker(wall, 0.5 - 0.05 * step))
    canvas.box(0.5, 0.0, 1, rng.uniform(0.0, 0.16), lighter(wall, 0.4))
    floor = min(bottom - 0.05, 0.97)
    canvas.box(0.5, floor + 0.45, 1, 1, darker(wall, 0.35))
    canvas.box(0.5, floor + 0.5, 1, 1, lighter(wall, 0.55))
    for way in (-1, 1):
        _stand_beside(canvas, rng, area, way, rng.uniform(-0.07, 0.06))
    y = bottom + rng.uniform(0.0, 0.05)
    canvas.box(0.5, y + 0.5, 1, 1, rail)
    canvas.box(0.5, y, 1, 0.012, lighter(rail, 0.4))
    for x in np.arange(rng.uniform(-0.1, 0.3), 1.1, rng.uniform(0.3, 0.6)):
        canvas.box(x, y + 0.07, 0.2, 0.09, WHITE)
        canvas.text(_price(rng), x, y + 0.07, 0.045, BLACK, room=0.17)


def _draw_basket(canvas: Canvas, rng: Rng, _area: Area) -> None:
    """Draw a counter or, with a grid, the bottom of a shopping basket."""
    base = _pick(_BASKETS, rng)
    canvas.box(0.5, 0.5, 1, 1, base)
    if rng.random() < 0.5:
        for colour, shift in ((darker(base, 0.4), 0.008), (lighter(base, 0.25), 0.0)):
            for line in np.arange(0.03, 1.0, 0.12):
                canvas.box(line + shift, 0.5, 0.02, 1, colour)
                canvas.box(0.5, line + shift, 1, 0.02, colour)


def _stand_beside(canvas: Canvas, rng: Rng, area: Area, way: int, overlap: float) -> None:
    """Put some other product to the left (-1) or right (1) of the one photographed."""
    side, (left, top, right, bottom) = canvas.picture.width, area
    number, yaw = rng.integers(len(catalogue(NEIGHBOURS))), rng.choice([-0.32, 0.0, 0.28])
    pack = _neighbour(int(number), float(yaw), side)
    high = round((bottom - top) * rng.uniform(0.6, 1.08) * side)
    wide = round(high * pack.shape[1] / pack.shape[0])
    picture = Image.fromarray(cv2.resize(pack, (wide, high)))
    x = (right - overlap) * side if way > 0 else (left + overlap) * side - wide
    canvas.picture.paste(picture, (round(x), round(bottom * side) - high), picture)


@lru_cache(maxsize=64)
def _neighbour(number: int, yaw: float, side: int) -> Pixels:
    return view(catalogue(NEIGHBOURS)[number], yaw, 0.08, side)


def _draw_fingers(canvas: Canvas, rng: Rng, area: Area) -> None:
    """Draw the fingers of a hand that holds the product from a side."""
    left, top, right, bottom = area
    skin, way = _pick(_SKIN, rng), int(rng.choice([-1, 1]))
    start = rng.uniform(top + 0.45 * (bottom - top), bottom - 0.22)
    for number in range(rng.integers(2, 5)):
        reach = (right - left) * rng.uniform(0.08, 0.26)
        tip, y = (right - reach if way > 0 else left + reach), start + 0.105 * number
        canvas.box(tip + way * 0.5, y + 0.012, 1, 0.11, darker(skin, 0.5), 0.055)
        canvas.box(tip + way * 0.5, y, 1, 0.1, skin, 0.05)
        canvas.box(tip + way * 0.52, y - 0.016, 1, 0.045, lighter(skin, 0.14), 0.02)
        canvas.oval(tip + way * 0.045, y - 0.006, 0.03, 0.026, lighter(skin, 0.4))


def _hang_price(canvas: Canvas, rng: Rng, area: Area) -> None:
    """Hang a price tag over the product's foot."""
    x, y = rng.uniform(area[0], area[2]), area[3] - rng.uniform(0.0, 0.08)
    paper, width, height = _pick(_PAPERS, rng), rng.uniform(0.24, 0.4), rng.uniform(0.12, 0.17)
    canvas.box(x + 0.01, y + 0.01, width, height, darker(paper, 0.65), 0.01)
    canvas.box(x, y, width, height, paper, 0.01)
    canvas.text(_price(rng), x, y + 0.1 * height, 0.45 * height, BLACK, room=0.8 * width)


def _stick_offer(canvas: Canvas, rng: Rng, area: Area) -> None:
    """Stick a small round offer somewhere on the product."""
    x, y = rng.uniform(area[:2], area[2:])
    radius, colour = rng.uniform(0.055, 0.085), _pick(_OFFERS, rng)
    canvas.oval(x, y, radius, radius, darker(colour, 0.2))
    canvas.oval(x, y, 0.92 * radius, 0.92 * radius, colour)
    percent = f"-{5 * rng.integers(2, 11)}%"
    canvas.text(percent, x, y, 0.6 * radius, WHITE, room=1.6 * radius)


def _price(rng: Rng) -> str:
    return f"{rng.integers(0, 20)}.{rng.integers(0, 100):02d}"


def _pick(colours: list[Colour], rng: Rng) -> Colour:
    return colours[rng.integers(len(colours))]


def _tilted(scene: Pixels, degrees: float) -> Pixels:
    """Return the scene in a camera that is not held quite level."""
    size = len(scene)
    matrix = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), degrees, 1.0)
    cubic, replicate = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
    tilted = cv2.warpAffine(scene, matrix, (size, size), flags=cubic, borderMode=replicate)
    return np.asarray(tilted)


def _shrunk(scene: Image.Image, size: int) -> Pixels:
    return np.asarray(cv2.resize(np.asarray(scene), (size, size), interpolation=cv2.INTER_AREA))
