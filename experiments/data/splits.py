"""Splitting photos so that every product is on both sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.data.dataset import DataError, Sample


def stratified_holdout(
    samples: Sequence[Sample],
    fraction: float,
    seed: int,
    *,
    minimum: int = 1,
    copies: Mapping[Path, str] | None = None,
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Hold out a fraction of the photos of every class.

    A class of n photos gives `round(fraction * n)`, at least `minimum` and at most n - 1 of them:
    a class with a single photo keeps it, one always stays. Each class is drawn by itself, so photos
    added to one class move no photo of another.

    Copies of one photo stay together: all of them are held out, or none. Where they are of several
    classes, so that one of the labels is wrong, none is; only where that is every photo, so that
    nothing could be held out, does the draw pass over it.

    Args:
        samples: the photos, in any order: the split depends on their paths only.
        fraction: share held out, in [0, 1); at 0 nothing is.
        seed: seed of the draw, not negative.
        minimum: photos held out of each class that has more than that, however small the fraction.
        copies: files with the same content as another, each with a key of the content, as
            `experiments.data.copies.find_copies` returns them.

    Returns:
        The rest and the held-out photos, both sorted by path.

    Raises:
        DataError: `fraction` is outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise DataError(
            f"the fraction of photos to hold out is {fraction}, expected a number from 0 "
            "(hold out none) to below 1: pass for example 0.1"
        )
    ordered = sorted(samples, key=lambda sample: sample.path.as_posix())
    if fraction == 0:
        return tuple(ordered), ()
    copies = copies or {}
    by_class: dict[int, list[Sample]] = defaultdict(list)
    classes_of: dict[str, set[int]] = defaultdict(set)
    for sample in ordered:
        by_class[sample.label].append(sample)
        classes_of[_content(sample, copies)].add(sample.label)
    held_out: set[Sample] = set()
    for label, photos in by_class.items():
        count = min(max(round(fraction * len(photos)), minimum), len(photos) - 1)
        drawn = np.random.default_rng([seed, label]).permutation(len(photos))
        groups: dict[str, list[Sample]] = defaultdict(list)
        for index in drawn:
            groups[_content(photos[index], copies)].append(photos[index])
        of_one_class = [group for key, group in groups.items() if len(classes_of[key]) == 1]
        held_out.update(_hold_out(of_one_class, count, len(photos)))
    if all(len(classes) > 1 for classes in classes_of.values()):
        return stratified_holdout(ordered, fraction, seed, minimum=minimum)
    return (
        tuple(sample for sample in ordered if sample not in held_out),
        tuple(sample for sample in ordered if sample in held_out),
    )


def _content(sample: Sample, copies: Mapping[Path, str]) -> str:
    """Return what a photo has in common with its copies alone."""
    return copies.get(sample.path, sample.path.as_posix())


def _hold_out(groups: Sequence[Sequence[Sample]], count: int, photos: int) -> list[Sample]:
    """Take the first groups that fit into `count`, or else the smallest that leaves some."""
    held: list[Sample] = []
    for group in groups:
        if len(held) + len(group) <= count:
            held += group
    smallest = min(groups, key=len, default=())
    if not held and count > 0 and len(smallest) < photos:
        held += smallest
    return held
