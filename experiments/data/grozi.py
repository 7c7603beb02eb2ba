"""GroZi-120 (Merler, Galleguillos and Belongie, 2007): packshots from the web, crops from shelves.

Two protocols. "in-vitro" is the paper's: train on the packshots, test on all crops. "in-situ"
trains and tests on crops, split by video.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Literal

from experiments.data.dataset import DataError, DataNotGivenError, ProductDataset, Sample
from experiments.data.grozi_check import check_grozi
from experiments.data.grozi_download import download_grozi
from experiments.data.grozi_files import (
    HOME,
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
from experiments.data.source import CatalogEntry, DataOptions, Source
from experiments.data.splits import stratified_holdout
from experiments.data.video_split import Crop, hold_out_frames, hold_out_videos

logger = logging.getLogger(__name__)

Protocol = Literal["in-vitro", "in-situ"]


def load_grozi(
    root: str | Path,
    protocol: Protocol,
    *,
    test_fraction: float = 0.3,
    validation_fraction: float | None = None,
    seed: int = 0,
) -> ProductDataset:
    """Read the data set; no image is decoded.

    "in-vitro" trains on the packshots, each cut out where a PNG with transparency or a mask allows
    (`Sample.mask`), and tests on all crops. By default no packshot is held out: there are about
    six of a product, and a validation on them would cost training photos and tell little of
    shelves. The last epoch is kept then. Crops are for the test alone.

    "in-situ" holds out whole videos of every product for the test, and the last frames of the
    other videos for validation, a second apart from what is trained on (see `video_split`).

    Products of which there are no photos are left out, with a warning.

    Args:
        root: the folder with inVitro and inSitu, or one that holds it as grozi-120.
        protocol: key of the protocol, which says what photos are trained on.
        test_fraction: share of a product's crops that is held out for the test by "in-situ", in
            (0, 1), as far as videos can be parted that way.
        validation_fraction: share of the training photos that is held out, in [0, 1); None for 0
            in "in-vitro" and 0.1 in "in-situ".
        seed: seed of the holdout of packshots; videos are split without any chance.

    Returns:
        The data set, named "grozi-120/<protocol>". Its classes are the products' numbers and
        descriptions, in the order of the numbers; "product <number>" where UPC_index.txt is
        missing.

    Raises:
        DataNotGivenError: inVitro or inSitu, as far as the protocol needs it, is not there.
        DataError: it is there and cannot be used; a fraction is out of range. The message says
            why, and what to do.
    """
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction is {test_fraction}, expected more than 0 and less than 1")
    if not 0 <= (validation_fraction or 0.0) < 1:
        raise DataError(f"validation_fraction is {validation_fraction}, expected 0 to below 1")
    folder = find_grozi(Path(root))
    if protocol == "in-vitro":
        return _load_in_vitro(folder, validation_fraction or 0.0, seed)
    share = 0.1 if validation_fraction is None else validation_fraction
    return _load_in_situ(folder, test_fraction, share)


def _load_in_vitro(folder: Path, validation_fraction: float, seed: int) -> ProductDataset:
    _require(folder, IN_VITRO)
    _require(folder, IN_SITU)
    photos = {product: packshots(folder, product) for product in PRODUCTS}
    label_of = _labels({product for product in photos if photos[product]})
    if not label_of:
        raise DataError(f"{folder / IN_VITRO} holds no packshot; {how_to_get()}")
    _warn("no packshots, left out", [k for k in PRODUCTS if k not in label_of])
    train = [
        Sample(photo.path, label, photo.mask)
        for product, label in label_of.items()
        for photo in photos[product]
    ]
    seen = {product: crops(folder, product) for product in label_of}
    _warn("no crops to test on", [product for product in seen if not seen[product]])
    test = [Sample(path, label_of[product]) for product in seen for path in seen[product].values()]
    if not test:
        raise DataError(f"{folder / IN_SITU} holds no crop; {how_to_get()}")
    rest, held_out = stratified_holdout(train, validation_fraction, seed, minimum=0)
    return ProductDataset(
        name="grozi-120/in-vitro",
        classes=_names(folder, list(label_of)),
        train=rest,
        validation=tuple(Sample(sample.path, sample.label) for sample in held_out),
        test=tuple(test),
    )


def _load_in_situ(folder: Path, test_fraction: float, validation_fraction: float) -> ProductDataset:
    _require(folder, IN_SITU)
    found = {product: crops(folder, product) for product in PRODUCTS}
    label_of = _labels({product for product in found if found[product]})
    if not label_of:
        raise DataError(f"{folder / IN_SITU} holds no crop; {how_to_get()}")
    _warn("no crops, left out", [k for k in PRODUCTS if k not in label_of])
    seen = [
        crop
        for product, label in label_of.items()
        for crop in _sightings(folder, product, label, found[product])
    ]
    rest, test = hold_out_videos(seen, test_fraction)
    if not test:
        raise DataError(
            f"no test photos: every product in {folder / IN_SITU} is in one video for about a "
            f"second; {how_to_get()}"
        )
    tested = {crop.sample.label for crop in test}
    _warn("no crops to test on", [k for k, label in label_of.items() if label not in tested])
    train, validation = (
        hold_out_frames(rest, validation_fraction) if validation_fraction else (rest, [])
    )
    return ProductDataset(
        name="grozi-120/in-situ",
        classes=_names(folder, list(label_of)),
        train=tuple(crop.sample for crop in train),
        validation=tuple(crop.sample for crop in validation),
        test=tuple(crop.sample for crop in test),
    )


def _sightings(folder: Path, product: int, label: int, found: dict[int, Path]) -> list[Crop]:
    """Return the crops of a product with the frame that each is from."""
    file = coordinates_file(folder, product)
    sightings = read_coordinates(file, max(found)).sightings
    without = [number for number in found if number not in sightings]
    if without:
        raise DataError(
            f"{file} has {len(sightings)} lines, none for video{without[0]}.png (line k belongs to "
            f"video<k>.png), so its frame is unknown; remove the {len(without)} crops without a "
            f"line, or {how_to_get()}"
        )
    return [
        Crop(Sample(path, label), sightings[number].video, sightings[number].frame)
        for number, path in found.items()
    ]


def _require(folder: Path, part: str) -> None:
    if not (folder / part).is_dir():
        raise DataNotGivenError(f"{folder / part} is missing; {how_to_get()}")


def _labels(products: set[int]) -> dict[int, int]:
    return {product: label for label, product in enumerate(sorted(products))}


def _names(folder: Path, products: list[int]) -> tuple[str, ...]:
    file = index_file(folder)
    names = read_names(file) if file else {}
    return tuple(
        f"{product} {names[product]}" if product in names else f"product {product}"
        for product in products
    )


def _warn(what: str, products: list[int]) -> None:
    if products:
        logger.warning("GroZi-120: %s: products %s", what, ranges(products))


def _load(protocol: Protocol, options: DataOptions) -> ProductDataset:
    if options.root is None:
        raise DataNotGivenError(
            f"no photos of GroZi-120: pass --data-root DIR or set LCA_DATA_ROOT, and {how_to_get()}"
        )
    return load_grozi(options.root, protocol)


GROZI_120 = Source(
    name="grozi-120",
    datasets={
        "grozi-120/in-vitro": CatalogEntry(partial(_load, "in-vitro"), "GroZi-120"),
        "grozi-120/in-situ": CatalogEntry(partial(_load, "in-situ")),
    },
    home=HOME,
    check=check_grozi,
    download=download_grozi,
)
"""As the catalog knows it."""
