"""What tells one stored result from another: a fingerprint of the data set."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from experiments.checksum import content_digests
from experiments.data.dataset import ProductDataset, Sample
from experiments.training.recipe import Recipe


def backbone_file(
    output: Path, photos: ProductDataset, pretraining: Recipe, precision: torch.dtype
) -> Path:
    """Return where under `output` the backbone that this pretraining on `photos` makes is kept."""
    settings = {
        "photos": dataset_digest(photos),
        "recipe": asdict(pretraining),
        "precision": str(precision),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return output / f"embedded-backbone-{digest}.pt"


def dataset_digest(dataset: ProductDataset) -> str:
    """Return a fingerprint of the photos' content, names and labels, and of what each is used for.

    The folder they are in does not matter, nor do the dates of the files.

    Raises:
        OSError: a photo cannot be read.
    """
    made_of = [
        dataset.classes,
        dataset.train_repeats,
        *(_identities(split) for split in (dataset.train, dataset.validation, dataset.test)),
    ]
    # In ASCII, as names may hold any bytes.
    return hashlib.sha256(json.dumps(made_of).encode("ascii")).hexdigest()[:16]


def _identities(samples: Sequence[Sample]) -> list[list[Any]]:
    photos = content_digests(sample.path for sample in samples)
    masks = iter(content_digests(sample.mask for sample in samples if sample.mask is not None))
    return [
        [_name(sample.path), photo, sample.label, sample.mask and next(masks)]
        for sample, photo in zip(samples, photos, strict=True)
    ]


def _name(path: Path) -> str:
    """Return a photo's name and its folders', the same whether accents are composed or not."""
    return unicodedata.normalize("NFC", "/".join(path.parts[-3:]))
