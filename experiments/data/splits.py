"""Splitting photos so that every product is on both sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from experiments.data.dataset import DataError, Sample


def stratified_holdout(
    samples: Sequence[Sample], fraction: float, seed: int, *, minimum: int = 1
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Hold out a fraction of the photos of every class.

    A class of n photos gives `round(fraction * n)`, at least `minimum` and at most n - 1 of them:
    a class with a single photo keeps it, one always stays. Each class is drawn by itself, so photos
    added to one class move no photo of another.

    Args:
        samples: the photos, in any order: the split depends on their paths only.
        fraction: share held out, in [0, 1); at 0 nothing is.
        seed: of the draw, not negative.
        minimum: photos held out of a class however small the fraction, where it has more than that.

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
    by_class: dict[int, list[Sample]] = defaultdict(list)
    for sample in ordered:
        by_class[sample.label].append(sample)
    held_out: set[Sample] = set()
    for label, photos in by_class.items():
        count = min(max(round(fraction * len(photos)), minimum), len(photos) - 1)
        drawn = np.random.default_rng([seed, label]).permutation(len(photos))[:count]
        held_out.update(photos[index] for index in drawn)
    return (
        tuple(sample for sample in ordered if sample not in held_out),
        tuple(sample for sample in ordered if sample in held_out),
    )
