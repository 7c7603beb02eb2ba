"""The keypoint detectors by name, and how the keypoints of each are matched."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.matching.keypoints import Detector
from experiments.matching.matcher import DEFAULT_RATIO
from experiments.matching.sift import SiftDetector
from experiments.matching.superpoint import SuperPointDetector

_SUPERPOINT_DISTANCE = 0.7  # what Magic Leap's demo matches with


@dataclass(frozen=True)
class DetectorKind:
    """A detector of `DETECTORS`.

    Attributes:
        make: function that builds the detector from its weights (None where it has none) and a
            device.
        ratio: threshold of the ratio test between its descriptors, see `matcher.match`.
        max_distance: greatest distance between matching descriptors.
    """

    make: Callable[[Path | None, torch.device | str], Detector]
    ratio: float = DEFAULT_RATIO
    max_distance: float = math.inf


DETECTORS = {
    "sift": DetectorKind(lambda _weights, _device: SiftDetector()),
    "superpoint": DetectorKind(
        lambda weights, device: SuperPointDetector(weights, device=device),
        ratio=1.0,
        max_distance=_SUPERPOINT_DISTANCE,
    ),
}
"""Detectors by their name."""


def make_detector(
    name: str, weights: Path | None = None, device: torch.device | str = "cpu"
) -> Detector:
    """Return the detector `name`.

    Args:
        name: key of `DETECTORS`.
        weights: weights of the detector's network; None for a detector without one.
        device: device that the network runs on.

    Raises:
        ValueError: there is no such detector.
        WeightsNotGivenError: it needs weights and got none; the message says what to fetch.
        WeightsError: the weights given are not there.
    """
    if name not in DETECTORS:
        raise ValueError(f"detector is {name!r}; expected one of {', '.join(DETECTORS)}")
    return DETECTORS[name].make(weights, device)
