"""How sure a figure of the table is, and whether two rows of it differ.

Two things make an accuracy uncertain: the test photos are a sample, and so is the training run
(its seed). What each interval and p-value here takes into account:

- `wilson_interval`, one run: the photos. It speaks of that trained network.
- `student_half_width`, several runs: the seeds, on these test photos.
- `mcnemar`, two runs: the photos, which both saw. It speaks of those two networks.
- `paired_difference`, two rows of several runs: both. It speaks of the two methods.

The discordant photos of several seeds must not be thrown together for one McNemar test: every
photo would count once per seed as if it were another photo, and p would come out too small. Neither
may the p-values of the seeds be combined as if they were independent, as their photos are the same.
No p-value here is corrected for how many were looked at. Photos count as independent: all of it is
of more photos of these products. Of other products it says less, as photos of one are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads stats and optimize, a second, where they are used: few processes of a study do
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

_CONFIDENCE = 0.95
_LOG_SMALLEST_P = math.log(1e-12)


@dataclass(frozen=True)
class Difference:
    """By how much a second row is more accurate than a first, on the same test photos.

    Attributes:
        estimate: mean difference of accuracy, in -1..1.
        low: lower end of the difference's 95 % interval.
        high: upper end of the difference's 95 % interval.
        p_value: p-value of no difference; for one seed McNemar's, otherwise of the interval's own
            test.
        seed_p_values: McNemar's exact p-value of each seed.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    seed_p_values: tuple[float, ...]

    @property
    def seeds(self) -> int:
        """How many pairs of runs it is the mean of."""
        return len(self.seed_p_values)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a share.

    Args:
        successes: number of successes, 0..trials.
        trials: number of trials, at least 1.

    Returns:
        Its lower and upper end, 0..1.

    Raises:
        ValueError: the counts are out of range.
    """
    interval = scipy.stats.binomtest(successes, trials).proportion_ci(_CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def student_half_width(values: Sequence[float]) -> float | None:
    """Return half of Student's 95 % interval of the mean of `values`; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    return -float(stdtrit(n - 1, (1 - _CONFIDENCE) / 2)) * _standard_error(values)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the p-value of McNemar's exact test, two-sided.

    Of the photos that one run gets right and the other wrong, each run wins about half if they are
    equally good. With no such photo p is 1.

    Args:
        first: whether one run gets each photo right, (n,).
        second: whether the other run gets each photo right, (n,).

    Raises:
        ValueError: the shapes differ.
    """
    _check_photos(first, second)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    if gained + lost == 0:
        return 1.0
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue)


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Return the difference of accuracy of two rows on the same photos, with its interval.

    Half the interval is sqrt(photos**2 + seeds**2). `photos` is half the interval of Agresti and
    Min (2005), over the photos' mean differences: McNemar's test turned around, with half a photo
    added to each of its four kinds, so that rows without a discordant photo do not come out as
    certainly equal. `seeds` is half of Student's interval over the seeds' differences, 0 for one
    seed; they are put together as Zou and Donner (2008) do. In the simulations of
    tests/test_significance.py this covers the true difference with two seeds already, where an
    analysis of variance does not.

    Args:
        first: whether each run of the first row gets each photo right, (seeds, n).
        second: the same of the second row, (seeds, n). Run i of both is paired; a row of one run
            (keypoint matching has no seed) is paired with every run of the other.

    Raises:
        ValueError: the photos, or the numbers of runs, do not fit together.
    """
    _check_photos(first, second)
    if first.ndim != 2 or (len(first) != len(second) and 1 not in (len(first), len(second))):
        raise ValueError(
            f"runs x photos are {first.shape} and {second.shape}; expected equal numbers of runs, "
            "or one run on one side"
        )
    first, second = np.broadcast_arrays(first, second)
    gain = second.astype(np.float64) - first  # (seeds, n): -1, 0 or 1
    centre, spread = _agresti_min(gain.mean(axis=0))
    half = _half_width(spread, gain.mean(axis=1), 1 - _CONFIDENCE)
    p_values = tuple(mcnemar(one, other) for one, other in zip(first, second, strict=True))
    return Difference(
        estimate=float(gain.mean()),
        low=max(centre - half, -1.0),
        high=min(centre + half, 1.0),
        p_value=p_values[0] if len(p_values) == 1 else _p_value(centre, spread, gain.mean(axis=1)),
        seed_p_values=p_values,
    )


def class_accuracies(
    labels: NDArray[np.int64], right: NDArray[np.bool_], classes: int
) -> list[float | None]:
    """Return the accuracy on each class, 0..1; None for a class without test photos.

    Args:
        labels: class index of each photo, (n,).
        right: whether each run gets each photo right, (seeds, n); the runs' mean is returned.
        classes: number of classes.
    """
    photos = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=right.mean(axis=0), minlength=classes)
    return [float(hit / n) if n else None for hit, n in zip(hits, photos, strict=True)]


def _agresti_min(by_photo: NDArray[np.float64]) -> tuple[float, float]:
    """Return centre and standard error of the mean of differences (n,), each -1..1."""
    padded = len(by_photo) + 2  # half a photo won, half a photo lost, one without a difference
    centre = by_photo.sum() / padded
    variance = ((by_photo**2).sum() + 1 - padded * centre**2) / padded**2
    return float(centre), math.sqrt(variance)


def _half_width(spread: float, by_seed: NDArray[np.float64], error: float) -> float:
    """Return half the interval that errs with probability `error`."""
    photos = -spread * float(ndtri(error / 2))  # quantiles of the lower tail are negative
    if len(by_seed) < 2:
        return photos
    seeds = -_standard_error(by_seed) * float(stdtrit(len(by_seed) - 1, error / 2))
    return math.hypot(photos, seeds)


def _p_value(centre: float, spread: float, by_seed: NDArray[np.float64]) -> float:
    """Return the largest error at which the interval still holds 0."""

    def beyond_zero(logarithm: float) -> float:
        return _half_width(spread, by_seed, math.exp(logarithm)) - abs(centre)

    if beyond_zero(0.0) >= 0:  # before SciPy 1.17 quantiles of 1/2 are not quite 0
        return 1.0
    if beyond_zero(_LOG_SMALLEST_P) <= 0:
        return math.exp(_LOG_SMALLEST_P)
    return math.exp(float(scipy.optimize.brentq(beyond_zero, _LOG_SMALLEST_P, 0.0)))


def _standard_error(values: Sequence[float] | NDArray[np.float64]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _check_photos(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> None:
    if first.shape[-1] != second.shape[-1] or first.shape[-1] == 0:
        raise ValueError(
            f"the runs were tested on {first.shape[-1]} and {second.shape[-1]} photos; expected "
            "the same photos, at least one"
        )
