"""Finding a cell's photos again, and making pictures small enough to put into the report."""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.checksum import content_digests
from experiments.data.catalog import CATALOG, DataOptions
from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.data.embedded import SCENARIOS
from experiments.data.folder import load_folder
from experiments.report.stored import StoredCell, StoredRun
from experiments.study.digests import dataset_digest
from lca_fused.photos.reading import ImageError, read_image

_SIDE = 150  # px; shown at most as large
WEBP_QUALITY = 80
"""Of all pictures; 100 is the best."""


class PhotosNotFoundError(ValueError):
    """The photos of a cell are not to be had; the message says what to do."""


@dataclass(frozen=True)
class CellPhotos:
    """The photos a cell was trained and tested on.

    Attributes:
        classes: names of the products.
        train: photos that were trained on.
        validation: photos the best epoch was chosen on.
        test: path of every test photo, in the order of the cell's labels.
    """

    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Path, ...]


def find_photos(cell: StoredCell, run: StoredRun, data_root: Path | None) -> CellPhotos:
    """Find the photos of `cell` again.

    Args:
        cell: whose.
        run: that it belongs to; generated photos and the facts of a finetuning are there.
        data_root: folder of the photos, as the run was given it; None where it was not given.

    Raises:
        PhotosNotFoundError: the folder is missing, or does not hold what was tested.
    """
    try:
        dataset = _load(cell, run, data_root)
    except DataError as error:
        raise PhotosNotFoundError(str(error)) from error
    return CellPhotos(dataset.classes, dataset.train, dataset.validation, _test(cell, dataset))


def _load(cell: StoredCell, run: StoredRun, data_root: Path | None) -> ProductDataset:
    if run.facts is not None and run.facts["dataset"] == cell.dataset:
        return load_finetuned(run.facts, data_root)
    name = cell.dataset if cell.dataset in CATALOG else cell.dataset.partition("/")[0]
    if name not in CATALOG:
        raise PhotosNotFoundError(f"no data set {cell.dataset} is known here")
    if name.startswith("embedded/"):
        return _load_generated(cell, run.folder / name)
    if data_root is None:
        raise PhotosNotFoundError("give their folder with --data-root or LCA_DATA_ROOT")
    # Nothing is generated here, so there is no need for a cache, nor for a size.
    return CATALOG[name].load(DataOptions(root=data_root, cache=run.folder, image_size=0))


def _load_generated(cell: StoredCell, folder: Path) -> ProductDataset:
    """Read the photos that a study generated as they are: the catalog would replace others."""
    if not folder.is_dir():
        raise PhotosNotFoundError(
            f"{folder} is gone; run the study again and they are generated anew"
        )
    dataset = load_folder(folder, train_repeats=SCENARIOS[folder.name].train_repeats, quiet=True)
    if dataset_digest(dataset) != cell.settings.get("photos"):
        raise PhotosNotFoundError(
            f"{folder} does not hold the photos that were tested: they were generated anew since, "
            "of another size or by another version; run the study again as it was run"
        )
    return dataset


def load_finetuned(facts: Mapping[str, Any], data_root: Path | None = None) -> ProductDataset:
    """Load the photos of a finetuning, split as `facts` say; from `data_root` if they moved."""
    stored = Path(facts["photos"])
    return load_folder(
        stored if stored.is_dir() or data_root is None else data_root,
        validation_fraction=facts["validation_fraction"],
        test_fraction=facts["test_fraction"],
        seed=facts["split_seed"],
        quiet=True,
    )


def _test(cell: StoredCell, dataset: ProductDataset) -> tuple[Path, ...]:
    samples = dataset.test if cell.images is None else _named(cell.images, dataset.test)
    if tuple(sample.label for sample in samples) != cell.labels:
        raise PhotosNotFoundError(
            f"the {len(dataset.test)} test photos found are not the {len(cell.labels)} that were "
            "tested: photos were added, moved or removed since"
        )
    paths = tuple(sample.path for sample in samples)
    _check_contents(cell, paths)
    return paths


def _check_contents(cell: StoredCell, paths: Sequence[Path]) -> None:
    if cell.contents is None:
        return
    try:
        found = content_digests(paths)
    except OSError as error:
        raise PhotosNotFoundError(f"a test photo cannot be read: {error}") from error
    changed = [
        path
        for path, content, tested in zip(paths, found, cell.contents, strict=True)
        if content != tested
    ]
    if changed:
        raise PhotosNotFoundError(
            f"{len(changed)} of the {len(paths)} test photos were changed since they were tested, "
            f"{changed[0]} for one; run the same command again to test them as they are"
        )


def _named(images: Sequence[str], samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the sample that each path below the data set's folder names.

    Accents may be composed in one and decomposed in the other, as between Linux and macOS.
    """
    found = []
    by_end: dict[int, dict[tuple[str, ...], Sample]] = {}
    for image in images:
        parts = Path(image).parts
        ends = by_end.setdefault(len(parts), _by_end(samples, len(parts)))
        sample = ends.get(parts) or ends.get(_composed(parts))
        if sample is None:
            raise PhotosNotFoundError(f"the test photo {image} is not among those found")
        found.append(sample)
    return tuple(found)


def _by_end(samples: Sequence[Sample], length: int) -> dict[tuple[str, ...], Sample]:
    """Return samples by the last parts of their paths, as they are and with composed accents."""
    exact = {sample.path.parts[-length:]: sample for sample in samples}
    return {_composed(parts): sample for parts, sample in exact.items()} | exact


def _composed(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", part) for part in parts)


def thumbnail(path: Path) -> str | None:
    """Return a small copy of a photo as a data URI; None if it cannot be made."""
    file = io.BytesIO()
    try:
        image = read_image(path)
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        image.save(file, "WEBP", quality=WEBP_QUALITY)
    except (ImageError, OSError, KeyError):  # of Pillow, where it was built without WebP
        return None
    return webp_uri(file.getvalue())


def webp_uri(content: bytes) -> str:
    """Return the content of a WebP file as a data URI."""
    return "data:image/webp;base64," + base64.b64encode(content).decode()
