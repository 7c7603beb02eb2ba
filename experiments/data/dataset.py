"""What every data set is to the rest of the pipeline: named classes and three lists of photos."""

from __future__ import annotations

import enum
import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.checksum import content_digests


class DataError(ValueError):
    """The data is missing, empty or inconsistent; the message says what to do about it."""


class DataNotGivenError(DataError):
    """The photos are the user's to give, and were not."""


class Ground(enum.Enum):
    """What takes the place of a mask where the photo's ground is found by itself."""

    FILLED = "filled from the border"  # another text with every change to how it is found


@dataclass(frozen=True)
class Sample:
    """One photo of one product.

    Attributes:
        path: the image file.
        label: index of the product in `ProductDataset.classes`.
        mask: of a product that is to be cut out and laid on varied backgrounds, what says where it
            is (see `experiments.data.images.read_cutout`): an image file, `path` itself where its
            transparency does, or the ground. None for a photo that is taken as it is.
    """

    path: Path
    label: int
    mask: Path | Ground | None = None


@dataclass(frozen=True)
class ProductDataset:
    """Photos of products, split for one experiment.

    Attributes:
        name: the data set and its protocol, e.g. "grocery-store/one-shot".
        classes: names of the products; a `Sample.label` indexes them.
        train: photos the model is fitted on.
        validation: photos the best epoch is chosen on; may be empty, then the last epoch is kept.
        test: photos that are only ever scored.
        train_repeats: how often each training photo is drawn in an epoch (few-shot protocols
            repeat a handful of photos under fresh augmentation so that an epoch has enough steps).
        notes: what was left out or is odd, a sentence each, for the log and the report.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    train_repeats: int = 1
    notes: tuple[str, ...] = ()


def dataset_digest(dataset: ProductDataset) -> str:
    """Return a fingerprint of the photos' content, names and labels, and of what each is used for.

    The folder they are in does not matter, nor do the dates of the files, nor how they are cut out.

    Raises:
        OSError: a photo cannot be read.
    """
    return _digest(
        [
            dataset.classes,
            dataset.train_repeats,
            *(_identities(split) for split in (dataset.train, dataset.validation, dataset.test)),
        ]
    )


def cutting_digest(dataset: ProductDataset) -> str:
    """Return how many of the training photos are cut out, and a fingerprint of how.

    Raises:
        OSError: a mask cannot be read.
    """
    masks = [sample.mask for sample in dataset.train]
    files = iter(content_digests(mask for mask in masks if isinstance(mask, Path)))
    how = [mask.value if isinstance(mask, Ground) else mask and next(files) for mask in masks]
    cut = sum(mask is not None for mask in masks)
    return f"{cut} of {len(masks)}" + (f" ({_digest(how)[:8]})" if cut else "")


def _digest(made_of: list[Any]) -> str:
    # In ASCII, as names may hold any bytes.
    return hashlib.sha256(json.dumps(made_of).encode("ascii")).hexdigest()[:16]


def _identities(samples: Sequence[Sample]) -> list[list[Any]]:
    photos = content_digests(sample.path for sample in samples)
    return [
        [_name(sample.path), photo, sample.label]
        for sample, photo in zip(samples, photos, strict=True)
    ]


def _name(path: Path) -> str:
    """Return a photo's name and its folders', the same whether accents are composed or not."""
    return unicodedata.normalize("NFC", "/".join(path.parts[-3:]))
