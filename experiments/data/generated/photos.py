"""The two kinds of photos: the packshot a shop's catalogue has, and the one taken in the store.

Lengths are shares of the photo's side.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from experiments.data.generated.catalogue import NEIGHBOURS, Design, catalogue
from experiments.data.generated.drawing import BLACK, WHITE, Canvas, Colour, darker, lighter, rgb
from experiments.data.generated.pack import Pixels, view

Area = tuple[float, float, float, float]  # left, top, right, bottom
Rng = np.random.Generator

_SUPERSAMPLING = 2
_REFERENCE_SIDE = 112  # blur is given in pixels of an image this large
_WALLS = [rgb(code) for code in ("3A3D42", "6E6A64", "B9B4A8", "D9DCDD", "2B3440", "8A7B68")]
_RAILS = [rgb(code) for code in ("E9E9E4", "C8102E", "F2C200", "1F4E9A", "9AA0A6", "2E7D4F")]
_SKIN = [rgb(code) for code in ("F0C3A0", "D9A27C", "B57B52", "8A5A3A", "5E3B26")]
_PAPERS = [rgb(code) for code in ("FFFFFC", "FFE240", "FAFAF6")]
_OFFERS = [rgb(code) for code in ("E83C28", "FF8C00", "C81E5A")]
_BASKETS = [rgb(code) for code in ("8C8F93", "B23A48", "3E6FA3", "5B8C5A", "C9B79C", "6B5876")]


def packshot(design: Design, rng: Rng, size: int) -> Pixels:
    """Return a clean photo of a product on a light ground, uint8 [size, size, 4].

    It is RGB, and opaque where the product is, as a catalogue's cut-outs are.
    """
    side = _SUPERSAMPLING * size
    pack = view(design, rng.uniform(-0.42, 0.42), side)
    product, area = _placed(pack, side, 0.01, rng.uniform(0.84, 0.92), rng.normal(0, 0.7), rng)
    scene = Image.new("RGB", (side, side), (int(rng.integers(243, 256)),) * 3)
    _cast_shadow(scene, area, 0.3)
    scene.paste(product, mask=product)
    photo = _lit(scene, size, rng, rng.uniform(0.96, 1.02), 0.01)
    opacity = product.getchannel("A").resize((size, size), Image.Resampling.BOX)
    return np.dstack([_pixels(photo), np.asarray(opacity)])


def store_photo(design: Design, rng: Rng, size: int) -> Pixels:
    """Return a hurried phone photo of a product in the store, RGB uint8 [size, size, 3]."""
    side = _SUPERSAMPLING * size
    where = rng.choice(["shelf", "hand", "basket"], p=[0.66, 0.2, 0.14])
    pack = view(design, float(np.clip(rng.normal(0, 0.27), -0.6, 0.6)), side)
    degrees = rng.normal(0, 4 if where == "shelf" else 11)
    product, area = _placed(pack, side, 0.03, rng.uniform(0.84, 1.1), degrees, rng)
    shop = rng.integers(60, 190, (6, 6, 1)) + rng.integers(-45, 46, (6, 6, 3))  # out of focus
    scene = Image.fromarray(_pixels(shop)).resize((side, side), Image.Resampling.BICUBIC)
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
    return _taken_by_phone(scene, size, rng)


def _placed(
    pack: Pixels, side: int, spread: float, extent: float, degrees: float, rng: Rng
) -> tuple[Image.Image, Area]:
    """Return a pack near the middle of a transparent photo, and where it is.

    Args:
        pack: RGB and opacity, uint8 [H, W, 4].
        side: side of the photo in pixels.
        spread: how far from the photo's middle the pack's typically is.
        extent: the pack's longer side.
        degrees: turn of the pack in the photo.
        rng: generator of the place and of the perspective.
    """
    height, width = pack.shape[:2]
    corners = np.array([(-width, -height), (width, -height), (width, height), (-width, height)])
    corners = corners * (extent / 2 / max(width, height)) * rng.uniform(0.94, 1.04, (4, 2))
    matrix = cv2.getRotationMatrix2D((0, 0), degrees, 1.0)[:, :2]
    corners = corners @ matrix.T + rng.normal(0.5, spread, 2)
    flat = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    warp = cv2.getPerspectiveTransform(flat, (side * corners).astype(np.float32))
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    placed = cv2.warpPerspective(pack, warp, (side, side))
    return Image.fromarray(placed), (left, top, right, bottom)


def _cast_shadow(scene: Image.Image, area: Area, strength: float) -> None:
    """Darken the scene under and beside the product that is going to stand there."""
    shade, (left, _, right, bottom), side = Image.new("L", scene.size), area, scene.width
    edges = [left - 0.03, bottom - 0.07, right + 0.03, bottom + 0.03]
    ImageDraw.Draw(shade).ellipse([side * edge for edge in edges], round(255 * strength))
    scene.paste((0, 0, 0), mask=shade.filter(ImageFilter.BoxBlur(0.04 * side)))


def _draw_shelf(canvas: Canvas, rng: Rng, area: Area) -> None:
    """Draw a shelf for the product to stand on, with its neighbours and price labels."""
    bottom, wall, rail = area[3], _pick(_WALLS, rng), _pick(_RAILS, rng)
    for step in range(10):  # darker towards the shelf above
        canvas.box(0.5, 0.5 + 0.05 * step, 1, 1, darker(wall, 0.5 - 0.05 * step))
    canvas.box(0.5, min(bottom - 0.05, 0.97) + 0.5, 1, 1, lighter(wall, 0.55))
    for way in (-1, 1):
        _stand_beside(canvas, rng, area, way, rng.uniform(-0.07, 0.06))
    y = bottom + rng.uniform(0.0, 0.05)
    canvas.box(0.5, y + 0.5, 1, 1, rail)
    for x in np.arange(rng.uniform(-0.1, 0.3), 1.1, rng.uniform(0.3, 0.6)):
        canvas.box(x, y + 0.07, 0.2, 0.09, WHITE)
        canvas.text(_price(rng), x, y + 0.07, 0.045, [BLACK], room=0.17)


def _draw_basket(canvas: Canvas, rng: Rng, _area: Area) -> None:
    """Draw a counter or, with a grid, the bottom of a shopping basket."""
    base = _pick(_BASKETS, rng)
    canvas.box(0.5, 0.5, 1, 1, base)
    for line in np.arange(0.03, 1.0, 0.12) if rng.random() < 0.5 else ():
        canvas.box(line, 0.5, 0.02, 1, lighter(base, 0.25))
        canvas.box(0.5, line, 1, 0.02, lighter(base, 0.25))


def _stand_beside(canvas: Canvas, rng: Rng, area: Area, way: int, overlap: float) -> None:
    """Put some other product to the left (-1) or right (1) of the one photographed."""
    side, (left, top, right, bottom) = canvas.picture.width, area
    number, yaw = rng.integers(len(catalogue(NEIGHBOURS))), rng.choice([-0.32, 0.0, 0.28])
    pack = _neighbour(int(number), float(yaw), side)
    high = round((bottom - top) * rng.uniform(0.6, 1.08) * side)
    wide = round(high * pack.width / pack.height)
    x = (right - overlap) * side if way > 0 else (left + overlap) * side - wide
    pack = pack.resize((wide, high))
    canvas.picture.paste(pack, (round(x), round(bottom * side) - high), pack)


@lru_cache(maxsize=64)
def _neighbour(number: int, yaw: float, side: int) -> Image.Image:
    return Image.fromarray(view(catalogue(NEIGHBOURS)[number], yaw, side))


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
        canvas.oval(tip + way * 0.045, y - 0.006, 0.06, 0.05, lighter(skin, 0.4))


def _hang_price(canvas: Canvas, rng: Rng, area: Area) -> None:
    """Hang a price tag over the product's foot."""
    x, y = rng.uniform(area[0], area[2]), area[3] - rng.uniform(0.0, 0.08)
    paper, width, height = _pick(_PAPERS, rng), rng.uniform(0.24, 0.4), rng.uniform(0.12, 0.17)
    canvas.box(x + 0.01, y + 0.01, width, height, darker(paper, 0.65), 0.01)
    canvas.box(x, y, width, height, paper, 0.01)
    canvas.text(_price(rng), x, y, 0.45 * height, [BLACK], room=0.8 * width)


def _stick_offer(canvas: Canvas, rng: Rng, area: Area) -> None:
    """Stick a small round offer somewhere on the product."""
    x, y = rng.uniform(area[:2], area[2:])
    radius, colour = rng.uniform(0.055, 0.085), _pick(_OFFERS, rng)
    canvas.discs(x, y, radius, darker(colour, 0.2), colour)
    canvas.text(f"-{5 * rng.integers(2, 11)}%", x, y, 0.6 * radius, [WHITE], room=1.6 * radius)


def _price(rng: Rng) -> str:
    return f"{rng.integers(0, 20)}.{rng.integers(0, 100):02d}"


def _pick(colours: list[Colour], rng: Rng) -> Colour:
    return colours[rng.integers(len(colours))]


def _taken_by_phone(scene: Image.Image, size: int, rng: Rng) -> Pixels:
    """Return what a phone makes of a scene: contrast, glare, blur, noise and JPEG."""
    photo = _lit(scene, size, rng, rng.uniform(0.8, 1.28), rng.uniform(0.02, 0.1))
    photo = 118 + rng.uniform(0.84, 1.14) * (photo - 118)
    if rng.random() < 0.4:
        spot, centre = np.zeros((size, size), np.float32), size * rng.uniform(0.2, 0.8, 2)
        axes = size * rng.uniform((0.3, 0.03), (1.0, 0.2))  # a lamp's reflection, long and soft
        place = centre.tolist(), axes.tolist(), rng.uniform(0, 180)
        cv2.ellipse(spot, place, rng.uniform(60, 170), -1)
        photo += cv2.GaussianBlur(spot, (0, 0), 0.05 * size)[..., None]
    shake, rise = size / _REFERENCE_SIDE * (0.2 + rng.exponential(0.4, 2).clip(0, 1.5))
    photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), shake, sigmaY=rise))
    photo += rng.uniform(1, 5) * rng.standard_normal(photo.shape, dtype=np.float32)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(38, 93))]
    _, stream = cv2.imencode(".jpg", _pixels(photo), quality)
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_COLOR))


def _lit(
    scene: Image.Image, size: int, rng: Rng, exposure: float, unevenness: float
) -> NDArray[np.floating[Any]]:
    """Shrink a scene, in light that differs a little in colour, and from place to place."""
    light = rng.normal(exposure, unevenness, (3, 3, 1)) + rng.normal(0, unevenness / 2, 3)
    gain = cv2.resize(light.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(np.asarray(scene), (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small * gain)


def _pixels(photo: NDArray[np.generic]) -> Pixels:
    return np.clip(photo, 0, 255).astype(np.uint8)
