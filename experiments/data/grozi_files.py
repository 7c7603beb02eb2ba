"""Where GroZi-120 keeps what: its folders, numbered images and text files.

inVitro/<1..120>/web/JPEG/web<k>.jpg    packshots, as found on the web
                    /PNG/web<k>.png     the same with a transparent background
                    /masks/mask<k>.png  the same as a mask, bright on the product
inSitu/<1..120>/video/video<k>.png      crops of videos of the shelves
               /coordinates.txt         its line k: video, frame, x, y, width, height
Index/UPC_index.txt                     number, UPC and description of each product
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from experiments.data.dataset import DataError, DataNotGivenError

PRODUCTS = range(1, 121)
CROPS = 11_194  # published number of images cut from the videos
HOME = "https://grozi.calit2.net/grozi.html"
IN_VITRO, IN_SITU = "inVitro", "inSitu"

_FOLDERS = ("grozi-120", "GroZi-120", "")
_INDEX_FOLDERS = ("Index", "index", "index2", "")


@dataclass(frozen=True)
class Packshot:
    """A product as a shop shows it on the web.

    Attributes:
        path: path of the image.
        mask: image that says where the product is: `path` itself where its transparency says so, a
            mask's file, or None where nothing does.
    """

    path: Path
    mask: Path | None


@dataclass(frozen=True)
class Sighting:
    """When a crop was seen: the line of coordinates.txt that belongs to it."""

    video: int
    frame: int


@dataclass(frozen=True)
class Coordinates:
    """What coordinates.txt of a product says.

    Attributes:
        sightings: when each crop was seen, by the number of the crop, from 1.
        doubled: whether the file lists all lines twice (as product 82's does); they are taken once.
    """

    sightings: dict[int, Sighting]
    doubled: bool


def find_grozi(root: Path) -> Path:
    """Return the folder that holds inVitro or inSitu.

    Args:
        root: the folder with inVitro and inSitu, or one that holds it as grozi-120 or GroZi-120.

    Raises:
        DataNotGivenError: there is none.
    """
    for folder in _FOLDERS:
        if any((root / folder / part).is_dir() for part in (IN_VITRO, IN_SITU)):
            return root / folder
    raise DataNotGivenError(
        f"no photos of GroZi-120: neither {IN_VITRO} nor {IN_SITU} is in {root / _FOLDERS[0]}; "
        f"{how_to_get()}"
    )


def how_to_get() -> str:
    """Return what to do where files of GroZi-120 are missing, a clause."""
    return (
        "run `python -m experiments.data download grozi-120 --data-root DIR`, or unpack "
        f"inVitro.zip and inSitu.zip from {HOME} in DIR/grozi-120"
    )


def packshots(folder: Path, product: int) -> list[Packshot]:
    """List the packshots of a product, each image once, by number.

    The PNG is taken where there is one, else the JPEG with its mask, else the JPEG as it is.

    Args:
        folder: the folder that `find_grozi` returns.
        product: number of the product.
    """
    web = folder / IN_VITRO / str(product) / "web"
    cutouts = _numbered(web / "PNG", "web", "png")
    originals = _numbered(web / "JPEG", "web", "jpe?g")
    masks = _numbered(web / "masks", "mask", "png")
    return [
        Packshot(cutouts[number], mask=cutouts[number])
        if number in cutouts
        else Packshot(originals[number], mask=masks.get(number))
        for number in sorted(cutouts.keys() | originals.keys())
    ]


def crops(folder: Path, product: int) -> dict[int, Path]:
    """List the crops of a product by number.

    Args:
        folder: the folder that `find_grozi` returns.
        product: number of the product.
    """
    found = _numbered(folder / IN_SITU / str(product) / "video", "video", "png")
    return dict(sorted(found.items()))


def coordinates_file(folder: Path, product: int) -> Path:
    """Return the file that says when each crop of a product was seen."""
    return folder / IN_SITU / str(product) / "coordinates.txt"


def read_coordinates(file: Path, last_crop: int) -> Coordinates:
    """Read when each crop of a product was seen.

    Args:
        file: path of the product's coordinates.txt.
        last_crop: the highest number of a crop.

    Raises:
        DataError: the file is missing, or a line does not begin with six whole numbers.
    """
    if not file.is_file():
        raise DataError(f"{file} is missing, it says which frame each crop is from; {how_to_get()}")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    sightings = [
        _parse_sighting(file, number, line)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    half = len(sightings) // 2
    doubled = len(sightings) > last_crop and sightings[:half] == sightings[half:]
    once = sightings[:half] if doubled else sightings
    return Coordinates(dict(enumerate(once, start=1)), doubled)


def index_file(folder: Path) -> Path | None:
    """Return the file that names the products, or None."""
    candidates = (folder / index / "UPC_index.txt" for index in _INDEX_FOLDERS)
    return next((file for file in candidates if file.is_file()), None)


def read_names(file: Path) -> dict[int, str]:
    """Read the descriptions of the products, by number.

    Number, UPC and description of a product stand on three lines, or on one. Whatever else the
    file holds, such as headings, is passed over.
    """
    text = file.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff")
    entries = re.findall(
        r"^\s*(\d{1,3})\s+(\d[\d -]{3,18}\d)\s+(\S.*?)\s*$", text, flags=re.MULTILINE
    )
    return {int(number): name for number, _, name in entries if int(number) in PRODUCTS}


def ranges(numbers: list[int]) -> str:
    """Write sorted numbers shortly: "1, 4-6, 9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _numbered(folder: Path, stem: str, extension: str) -> dict[int, Path]:
    """List the files <stem><k>.<extension> of a folder by k; nothing where there is no folder."""
    if not folder.is_dir():
        return {}
    pattern = re.compile(rf"{stem}(\d+)\.{extension}", flags=re.IGNORECASE)
    matches = ((pattern.fullmatch(name), folder / name) for name in os.listdir(folder))
    return {int(match[1]): path for match, path in matches if match}


def _parse_sighting(file: Path, number: int, line: str) -> Sighting:
    try:
        video, frame, _x, _y, _width, _height = map(int, line.split()[:6])
    except ValueError:
        raise DataError(
            f"{file}, line {number}: expected video, frame, x, y, width and height, six whole "
            f"numbers, got {line!r}; repair the line, or {how_to_get()}"
        ) from None
    return Sighting(video, frame)
