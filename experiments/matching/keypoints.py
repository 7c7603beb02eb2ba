"""Local keypoints of a photo, and what a detector of them must offer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

_UNIT_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The keypoints of one photo; K is 0 where nothing was found.

    Attributes:
        points: positions (x, y) in pixels of the photo the detector was given, (K, 2) float32.
        descriptors: rows of unit L2 norm, so that a dot product is a cosine, (K, D) float32.
        size: (width, height) of that photo in pixels.

    Raises:
        ValueError: the arrays disagree in length, have other shapes or dtypes, or a descriptor is
            not of unit norm.
    """

    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.points.dtype != np.float32 or self.descriptors.dtype != np.float32:
            raise ValueError(
                f"points and descriptors must be float32, got {self.points.dtype} and "
                f"{self.descriptors.dtype}"
            )
        if self.points.shape != (len(self.points), 2):
            raise ValueError(f"points must be (K, 2), got {self.points.shape}")
        if self.descriptors.ndim != 2 or len(self.descriptors) != len(self.points):
            raise ValueError(
                f"descriptors must be (K, D) with K = {len(self.points)}, "
                f"got {self.descriptors.shape}"
            )
        norms = np.linalg.norm(self.descriptors, axis=1)
        if not np.allclose(norms, 1.0, rtol=0.0, atol=_UNIT_NORM_TOLERANCE):
            raise ValueError("descriptors must have unit L2 norm")

    def __len__(self) -> int:
        """Return K, the number of keypoints."""
        return len(self.points)


class Detector(Protocol):
    """Finds and describes the keypoints of a photo.

    A detector is deterministic: the same photo gives the same keypoints. All its descriptors have
    the same length D and unit L2 norm.
    """

    @property
    def name(self) -> str:
        """Short name for tables and file names, e.g. "sift"."""

    @property
    def params(self) -> Mapping[str, str | int | float]:
        """Everything besides the photo that the keypoints depend on; part of the cache key."""

    def detect(self, image: NDArray[np.uint8]) -> Keypoints:
        """Return the keypoints of `image`, (H, W, 3) uint8 RGB; an empty set where none is found.

        Raises:
            ValueError: `image` has another shape or dtype.
        """


@runtime_checkable
class BatchDetector(Detector, Protocol):
    """A detector that takes several photos in less time than one after the other."""

    @property
    def batch_size(self) -> int:
        """How many photos it takes at a time."""

    def detect_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Keypoints]:
        """Return what `detect` finds in each of `images`, whose sizes may differ.

        Raises:
            ValueError: an image has another shape or dtype.
        """


def detect_all(detector: Detector, images: Iterable[NDArray[np.uint8]]) -> Iterator[Keypoints]:
    """Yield the keypoints of each of `images`, (H, W, 3) uint8 RGB, in batches if it can be.

    Raises:
        ValueError: an image has another shape or dtype.
    """
    if not isinstance(detector, BatchDetector):
        yield from map(detector.detect, images)
        return
    remaining = iter(images)
    while batch := list(islice(remaining, detector.batch_size)):
        yield from detector.detect_batch(batch)


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise ValueError unless `image` is (H, W, 3) uint8 with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"an image must be (H, W, 3) uint8 RGB and not empty, got {image.shape} {image.dtype}"
        )
