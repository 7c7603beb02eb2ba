"""Classifiers that answer only where they are sure: what an answer is worth, and how to prove it.

`prove` finds the threshold of a stated precision. Many thresholds are tried on the same photos, so
the tests of each are ordered before a label is seen, as in "Learn then Test" (Angelopoulos et al.,
arXiv 2110.01052, section on fixed-sequence testing), here by the fallback procedure (Wiens, 2003),
which starts such a sequence at several places. Test k asks whether photos above the score of the
(k+1)-th surest are right with the stated precision: given that score the k surest are a sample of
them, and the number of wrong ones is binomial. Its p-value is exact, of Clopper and Pearson's bound
turned around. That sequences may start anywhere takes the assumption that the surer a photo is, the
more often it is right; and photos are to be independent: ten of one pack are nearly one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv

CONFIDENCE = 0.95
"""With which a precision is proven."""


@dataclass(frozen=True)
class Bound:
    """What the surest photos prove by themselves, whatever was asked.

    Attributes:
        photos: number of the surest photos.
        errors: number of them that are wrong.
        precision: that is proven, 0..1.
    """

    photos: int
    errors: int
    precision: float


@dataclass(frozen=True)
class Proof:
    """What validation photos say of a stated precision.

    Attributes:
        precision: the one asked for, 0..1.
        threshold: photos with scores above it are right with that precision; None where that was
            proven of all photos, or of none.
        photos: number of validation photos above the threshold; 0 where nothing was proven.
        errors: number of them that were wrong.
        best: the highest precision that the places the sequence starts at prove, all together at
            the same confidence; None where there are too few photos to start.
        share: of the probability to err, that each of these places has: the more photos to choose
            from, the more places, and the more of the surest have to be right.
    """

    precision: float
    threshold: float | None
    photos: int
    errors: int
    best: Bound | None
    share: float

    @property
    def holds(self) -> bool:
        """Whether the precision was proven."""
        return self.photos > 0


def prove(scores: NDArray[np.float64], right: NDArray[np.bool_], precision: float) -> Proof:
    """Return the loosest threshold that validation photos prove a precision of.

    Args:
        scores: how sure the classifier is of each photo, (n,), without having seen its label.
        right: whether its answer is right, (n,).
        precision: share of right answers among those accepted, above 0 and below 1.

    Raises:
        ValueError: the precision is out of its range.
    """
    if not 0 < precision < 1:
        raise ValueError(f"the precision is {precision}; expected a number above 0 and below 1")
    order = np.argsort(-scores, kind="stable")
    below = np.append(scores[order], -math.inf)[1:]  # the score that the k surest are above
    errors = np.cumsum(~right[order])
    starts = _starts(len(scores), precision)
    share = (1 - CONFIDENCE) / max(1, len(starts))  # of the probability to err
    k = np.arange(1, len(scores) + 1)
    p_values = bdtr(errors, k, 1 - precision)  # of a binomial number: at most so many wrong
    tied = scores[order] == below
    allowed, accepted = 0.0, 0
    for photos in range(starts[0] if starts else len(scores) + 1, len(scores) + 1):
        allowed += share if photos in starts else 0.0
        if tied[photos - 1]:
            continue
        if p_values[photos - 1] <= allowed:
            accepted = photos
        else:
            allowed = 0.0
    last = accepted == len(scores)
    return Proof(
        precision,
        threshold=float(below[accepted - 1]) if accepted and not last else None,
        photos=accepted,
        errors=int(errors[accepted - 1]) if accepted else 0,
        best=max(
            (_bound(start, int(errors[start - 1]), share) for start in starts),
            key=lambda bound: bound.precision,
            default=None,
        ),
        share=share,
    )


@cache
def fewest_photos(precision: float, errors: int = 0, error: float = 1 - CONFIDENCE) -> int:
    """Return how many photos, with so many wrong ones among them, prove a precision.

    Args:
        precision: above 0 and below 1.
        errors: wrong ones.
        error: probability that the proof errs.
    """
    few, enough = errors, errors + 1
    while bdtr(errors, enough, 1 - precision) > error:
        few, enough = enough, 2 * enough
    while enough - few > 1:
        middle = (few + enough) // 2
        if bdtr(errors, middle, 1 - precision) > error:
            few = middle
        else:
            enough = middle
    return enough


def _starts(photos: int, precision: float) -> list[int]:
    """Return how many photos are accepted where a sequence starts, from few to all.

    As many starts as the fewest photos that prove anything can be doubled; each has an equal share
    of the probability to err.
    """
    if photos < fewest_photos(precision):
        return []
    number = 1 + int(math.log2(photos / fewest_photos(precision)))
    first = fewest_photos(precision, error=(1 - CONFIDENCE) / number)
    return sorted({round(start) for start in np.geomspace(first, photos, number)})


def _bound(photos: int, errors: int, error: float) -> Bound:
    """Return Clopper and Pearson's lower bound of a share of right answers."""
    right = photos - errors
    lowest = float(betaincinv(right, errors + 1, error)) if right else 0.0
    return Bound(photos, errors, lowest)


def coverage_curve(
    scores: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of photos answered, and that of right answers, of the k surest, (n,) each.

    Args:
        scores: how sure the classifier is of each photo, (n,).
        right: whether its answer is right, (n,).
    """
    k = np.arange(1, len(scores) + 1)
    return k / len(scores), np.cumsum(right[np.argsort(-scores, kind="stable")]) / k


def auroc(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """Return how often a photo of a known product is surer than one of an unknown, 0..1."""
    greater = scipy.stats.mannwhitneyu(known, unknown).statistic
    return float(greater) / (len(known) * len(unknown))


def let_through(
    known: NDArray[np.float64], unknown: NDArray[np.float64], kept: float = 0.95
) -> float:
    """Return the share of unknown products' photos that are accepted where `kept` of known are."""
    return float((unknown >= np.quantile(known, 1 - kept, method="lower")).mean())
