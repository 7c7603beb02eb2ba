"""GroZi-120 in small, in its own layout on disk: every kind of file, and the oddities known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PRODUCTS = (1, 2, 3, 82)
NAMES = {1: "Cheerios", 2: "7 Up", 3: "Snickers Bar", 82: "Gum, Mint"}
SHADES = {1: (200, 30, 30), 2: (30, 200, 30), 3: (30, 30, 200), 82: (180, 180, 30)}

# The (video, frame) of each crop, in the order of coordinates.txt. Product 2 is in one video alone.
SIGHTINGS = {
    1: [(4, 10 * k) for k in range(12)] + [(9, 500 + 10 * k) for k in range(4)],
    2: [(7, 10 * k) for k in range(20)],
    3: [(4, 0), (4, 5), (5, 0), (6, 0), (6, 3)],
    82: [(9, 3 * k) for k in range(3)] + [(11, 40 * k) for k in range(8)],
}
CROPS = sum(map(len, SIGHTINGS.values()))


def write_grozi(folder: Path) -> Path:
    """Write the tree: packshots web1 (PNG), web2 (JPEG and mask) and web3 (JPEG) of each product.

    Every image has its product's shade. A crop of product 3 is 11 pixels wide and nearly black;
    product 82's coordinates are there twice.
    """
    for product in PRODUCTS:
        _write_packshots(folder / "inVitro" / str(product) / "web", SHADES[product])
        _write_crops(folder / "inSitu" / str(product), product)
        for part in ("inVitro", "inSitu"):
            info = f"web\t3\nvideo\t{len(SIGHTINGS[product])}\n"
            (folder / part / str(product) / "info.txt").write_text(info)
    lines = [f"{product}\n{10**11 + product}\n{NAMES[product]}\n\n" for product in PRODUCTS]
    (folder / "Index").mkdir()
    (folder / "Index" / "UPC_index.txt").write_text("GROZI PRODUCTS\n\n" + "".join(lines))
    return folder


def coordinates(sightings: list[tuple[int, int]]) -> str:
    return "".join(f"{video}\t{frame}\t5\t6\t40\t30\n" for video, frame in sightings)


def _write_packshots(web: Path, shade: tuple[int, int, int]) -> None:
    for kind in ("JPEG", "PNG", "masks"):
        (web / kind).mkdir(parents=True)
    on_white = np.full((40, 60, 3), 255, np.uint8)
    on_white[10:30, 20:50] = shade
    inside = np.zeros((40, 60), np.uint8)
    inside[10:30, 20:50] = 255
    for number in (1, 2, 3):
        Image.fromarray(on_white).save(
            web / "JPEG" / f"web{number}.jpg", quality=100, subsampling=0
        )
    for number in (1, 2):
        Image.fromarray(inside).save(web / "masks" / f"mask{number}.png")
    Image.fromarray(np.dstack([on_white, inside])).save(web / "PNG" / "web1.png")
    (web / "JPEG" / "Thumbs.db").write_bytes(b"not a photo")


def _write_crops(folder: Path, product: int) -> None:
    (folder / "video").mkdir(parents=True)
    for number in range(1, len(SIGHTINGS[product]) + 1):
        pixels = np.full((30, 40, 3), SHADES[product], np.uint8)
        if (product, number) == (3, 1):
            pixels = pixels[:, :11] // 10
        Image.fromarray(pixels).save(folder / "video" / f"video{number}.png")
    lines = coordinates(SIGHTINGS[product])
    (folder / "coordinates.txt").write_text(lines * 2 if product == 82 else lines)
