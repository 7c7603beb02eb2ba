"""Whether probabilities are what they say: temperature, calibration error, reliability.

Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

BINS = 15
"""Of equal numbers of photos; of equal width most of them would hold next to none."""

_RANGE = (-5.0, 5.0)  # of the temperature's natural logarithm


@dataclass(frozen=True)
class Bin:
    """Photos of similar probability.

    Attributes:
        confidence: mean probability of the likeliest class, 0..1.
        photos: number of photos.
        right: number of photos whose likeliest class is right.
    """

    confidence: float
    photos: int
    right: int


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the temperature that makes the labels likeliest; 1 where every label is the top class.

    There the labels are the likelier the lower it is, without end: photos that are all recognised
    say that probabilities are too low, not by how much.

    Args:
        logits: of n photos, (n, K), n at least 1.
        labels: classes of the photos, (n,).
    """
    if (logits.argmax(axis=1) == labels).all():
        return 1.0

    def loss(logarithm: float) -> float:
        return log_loss(logits / np.exp(logarithm), labels)

    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=_RANGE, method="bounded").x))


def log_loss(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of labels (n,), in nats, of logits (n, K)."""
    of_label = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return float((logsumexp(logits, axis=1) - of_label).mean())


def reliability(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> list[Bin]:
    """Return photos in up to `BINS` bins of equal size, by rising probability.

    Args:
        logits: of n photos, (n, K).
        labels: classes of the photos, (n,).
    """
    confidence = softmax(logits, axis=1).max(axis=1)
    right = logits.argmax(axis=1) == labels
    order = np.argsort(confidence, kind="stable")
    return [
        Bin(float(confidence[photos].mean()), len(photos), int(right[photos].sum()))
        for photos in np.array_split(order, min(BINS, len(order)))
        if len(photos)
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Return the mean distance of probability and share of right answers, over photos, 0..1."""
    gaps = [abs(b.confidence * b.photos - b.right) for b in bins]
    return sum(gaps) / sum(b.photos for b in bins)
