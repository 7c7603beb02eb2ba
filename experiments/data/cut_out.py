"""Which training photos are cut out, to be laid on fresh grounds, and by what."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image
from tqdm import tqdm

from experiments.data.dataset import DataError, Ground, ProductDataset, Sample
from experiments.data.images import NothingLeftError, default_workers, read_cutout
from experiments.data.photo_files import mask_beside
from experiments.data.plain_ground import SIDE, fill_ground
from lca_fused.photos.reading import ImageError, read_rgba

logger = logging.getLogger(__name__)

CutOut = Literal["auto", "always", "never"]
"""auto: where transparency, a mask or a plain ground allows; always: also from other grounds."""

_LISTED = 20  # photos spelled out in one message


def cut_out(dataset: ProductDataset, how: CutOut) -> ProductDataset:
    """Say of each training photo whether and how it is cut out (`Sample.mask`).

    A product is told from its ground by, in this order: what the data set says, a mask beside the
    photo (see `experiments.data.photo_files.MASK_END`), the photo's own transparency, the ground.
    Photos that cannot be read are left as they are. How many are cut out is logged and noted.

    Args:
        dataset: whose validation and test photos are seen as they are in any case.
        how: which photos.

    Raises:
        DataError: nothing is left of photos that are always to be cut out.
    """
    train = cut_out_samples(dataset.train, how)
    if how == "never":
        return replace(dataset, train=train)
    note = _in_words(train)
    logger.info("%s: %s", dataset.name, note or "no training photo is cut out: no ground is plain")
    return replace(dataset, train=train, notes=(*dataset.notes, *([note] if note else [])))


def cut_out_samples(samples: Sequence[Sample], how: CutOut) -> tuple[Sample, ...]:
    """Return photos with how each is cut out (`Sample.mask`); as `cut_out` tells, and raises."""
    if how == "never":
        return tuple(replace(sample, mask=None) for sample in samples)
    with ThreadPoolExecutor(default_workers()) as pool:
        looked_at = tqdm(
            pool.map(partial(_cut, always=how == "always"), samples),
            total=len(samples),
            desc="looking at grounds",
            unit="photo",
            leave=False,
            disable=None,
        )
        cut = tuple(looked_at)
    if how == "always":
        _check_all_left(cut)
    return cut


def _cut(sample: Sample, *, always: bool) -> Sample:
    mask = sample.mask or mask_beside(sample.path)
    if mask is None:
        try:
            photo = read_rgba(sample.path, at_least=SIDE)
        except ImageError:
            return sample
        mask = told_by_itself(sample.path, photo, always=always)
    return replace(sample, mask=mask)


def told_by_itself(path: Path, photo: Image.Image, *, always: bool) -> Path | Ground | None:
    """Return what of a photo without a mask tells the product from its ground (`Sample.mask`).

    Args:
        path: of the photo.
        photo: as `read_rgba` returns it, with at least `SIDE` pixels a side where it has as many.
        always: whether it is cut out from any ground.
    """
    transparency = photo.getchannel("A")
    if transparency.getextrema() != (255, 255):
        return path if always or transparency.getbbox() else None
    return Ground.FILLED if always or fill_ground(photo).is_plain else None


def _check_all_left(samples: Sequence[Sample]) -> None:
    with ThreadPoolExecutor(default_workers()) as pool:
        empty = [path for path in pool.map(_if_nothing_is_left, samples) if path]
    if empty:
        more = ", ..." if len(empty) > _LISTED else ""
        raise DataError(
            f"nothing is left of {len(empty)} of {len(samples)} training photos once they are cut "
            f"out, as --cut-out always asks for: {', '.join(map(str, empty[:_LISTED]))}{more}; "
            "give each a mask beside it, NAME.mask.png, or pass --cut-out auto"
        )


def _if_nothing_is_left(sample: Sample) -> Path | None:
    try:
        if sample.mask is not None:
            read_cutout(sample.path, sample.mask)
    except NothingLeftError:
        return sample.path
    except ImageError:
        return None  # it is named where all photos are checked
    return None


def _in_words(samples: Sequence[Sample]) -> str:
    """Return how many photos are cut out and by what; nothing where none is."""
    by = Counter(what_tells(sample) for sample in samples if sample.mask is not None)
    if not by:
        return ""
    return (
        f"{by.total()} of {len(samples)} training photos are cut out and laid on fresh grounds: "
        f"{', '.join(f'{count} by {what}' for what, count in by.items())}; --cut-out never takes "
        "them as they are."
    )


def what_tells(sample: Sample) -> str:
    """Return what a photo is cut out by, in words."""
    if isinstance(sample.mask, Ground):
        return "their ground"
    return "their transparency" if sample.mask == sample.path else "a mask"
