"""What is missing or odd in a copy of GroZi-120; no image is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from experiments.data.dataset import DataError
from experiments.data.grozi_files import (
    CROPS,
    IN_SITU,
    IN_VITRO,
    PRODUCTS,
    coordinates_file,
    crops,
    find_grozi,
    how_to_get,
    index_file,
    packshots,
    ranges,
    read_coordinates,
    read_names,
)
from lca_fused.photos.reading import ImageError, image_size


def check_grozi(root: Path) -> list[str]:
    """Return what is missing or odd, each finding one sentence.

    Args:
        root: the folder with inVitro and inSitu, or one that holds it as grozi-120.
    """
    try:
        folder = find_grozi(root)
    except DataError as error:
        return [str(error)]
    return [*_check_index(folder), *_check_in_vitro(folder), *_check_in_situ(folder)]


def _check_index(folder: Path) -> Iterator[str]:
    file = index_file(folder)
    if file is None:
        yield (
            f"{folder / 'Index' / 'UPC_index.txt'} is missing, so products are named by their "
            "numbers alone."
        )
        return
    names = read_names(file)
    yield from _about(f"{file} does not name", [k for k in PRODUCTS if k not in names])


def _check_in_vitro(folder: Path) -> Iterator[str]:
    if not (folder / IN_VITRO).is_dir():
        yield f"{folder / IN_VITRO} is missing, there is nothing to train on; {how_to_get()}."
        return
    photos = {product: packshots(folder, product) for product in PRODUCTS}
    present = _present(folder / IN_VITRO)
    yield from _about(f"{folder / IN_VITRO} has no folder of", _without(PRODUCTS, present))
    yield from _about("There is no packshot of", [k for k in sorted(present) if not photos[k]])
    plain = [photo for product in PRODUCTS for photo in photos[product] if photo.mask is None]
    if plain:
        yield (
            f"{len(plain)} packshots have neither a PNG nor a mask, such as {plain[0].path}, and "
            "are trained on with the background they have."
        )
    for product in PRODUCTS:
        for photo in photos[product]:
            if photo.mask not in (None, photo.path):
                yield from _check_mask(photo.path, photo.mask)
        yield from _check_count(folder / IN_VITRO, product, "web", len(photos[product]))
    yield from _check_empty([photo.path for product in PRODUCTS for photo in photos[product]])


def _check_in_situ(folder: Path) -> Iterator[str]:
    if not (folder / IN_SITU).is_dir():
        yield f"{folder / IN_SITU} is missing, there is nothing to test on; {how_to_get()}."
        return
    found = {product: crops(folder, product) for product in PRODUCTS}
    present = _present(folder / IN_SITU)
    yield from _about(f"{folder / IN_SITU} has no folder of", _without(PRODUCTS, present))
    yield from _about("There is no crop of", [k for k in sorted(present) if not found[k]])
    for product in PRODUCTS:
        if found[product]:
            yield from _check_numbers(folder, product, found[product])
            yield from _check_coordinates(folder, product, found[product])
            yield from _check_count(folder / IN_SITU, product, "video", len(found[product]))
    yield from _check_empty([path for product in PRODUCTS for path in found[product].values()])
    total = sum(map(len, found.values()))
    if total != CROPS:
        yield f"{total:,} crops are there, {CROPS:,} were published."


def _check_mask(photo: Path, mask: Path) -> Iterator[str]:
    try:
        sizes = image_size(photo), image_size(mask)
    except ImageError as error:
        yield str(error)
        return
    if sizes[0] != sizes[1]:
        yield (
            f"{mask} is {sizes[1][0]} x {sizes[1][1]} pixels and {photo} {sizes[0][0]} x "
            f"{sizes[0][1]}; remove the mask to train on the photo as it is."
        )


def _check_numbers(folder: Path, product: int, found: dict[int, Path]) -> Iterator[str]:
    missing = [number for number in range(1, max(found) + 1) if number not in found]
    if missing:
        yield (
            f"{folder / IN_SITU / str(product) / 'video'} lacks crops {ranges(missing)} of its "
            f"{max(found)}."
        )


def _check_coordinates(folder: Path, product: int, found: dict[int, Path]) -> Iterator[str]:
    file = coordinates_file(folder, product)
    try:
        coordinates = read_coordinates(file, max(found))
    except DataError as error:
        yield f"{error}."
        return
    if coordinates.doubled:
        yield f"{file} has all its lines twice; each is read once."
    if len(coordinates.sightings) != max(found):
        yield (
            f"{file} has {len(coordinates.sightings)} lines and there are crops up to number "
            f"{max(found)}; line k belongs to video<k>.png."
        )


def _check_count(part: Path, product: int, kind: str, there: int) -> Iterator[str]:
    """Compare with the number of images that info.txt gives, where it can be read."""
    file = part / str(product) / "info.txt"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    stated = re.search(rf"^\W*{kind}\W+(\d+)", text, flags=re.IGNORECASE | re.MULTILINE)
    if stated and int(stated[1]) != there:
        yield f"{file} counts {stated[1]} {kind} images, {there} are there."


def _check_empty(paths: list[Path]) -> Iterator[str]:
    empty = [path for path in paths if path.stat().st_size == 0]
    if empty:
        yield f"{len(empty)} of {len(paths)} images are empty files, such as {empty[0]}."


def _present(part: Path) -> set[int]:
    return {product for product in PRODUCTS if (part / str(product)).is_dir()}


def _without(products: range, present: set[int]) -> list[int]:
    return [product for product in products if product not in present]


def _about(what: str, products: list[int]) -> Iterator[str]:
    if products:
        yield f"{what} products {ranges(products)}."
