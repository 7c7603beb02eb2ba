"""SIFT keypoints (Lowe 2004) with RootSIFT descriptors (Arandjelovic & Zisserman 2012)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.matching.keypoints import Keypoints, check_image

_DESCRIPTOR_LENGTH = 128


@dataclass(frozen=True)
class SiftDetector:
    """The strongest SIFT keypoints of a photo, described by RootSIFT.

    Sources: D. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004;
    R. Arandjelovic and A. Zisserman, "Three things everyone should know to improve object
    retrieval", CVPR 2012.

    Attributes:
        max_keypoints: most keypoints that are kept, those of the highest contrast first.
        contrast_threshold: contrast below which extrema are dropped (OpenCV's scale, images in
            0..1, divided by the three layers of an octave).
        edge_threshold: ratio of the principal curvatures above which an extremum lies on an edge
            and is dropped.

    Raises:
        ValueError: `max_keypoints` is not positive.
    """

    max_keypoints: int = 300
    contrast_threshold: float = 0.04
    edge_threshold: float = 10.0

    def __post_init__(self) -> None:
        if self.max_keypoints <= 0:
            raise ValueError(f"max_keypoints must be positive, got {self.max_keypoints}")

    @property
    def name(self) -> str:
        """Short name for tables and file names."""
        return "sift"

    @property
    def params(self) -> Mapping[str, str | int | float]:
        """Everything besides the photo that the keypoints depend on."""
        return {
            "max_keypoints": self.max_keypoints,
            "contrast_threshold": self.contrast_threshold,
            "edge_threshold": self.edge_threshold,
            "opencv": cv2.__version__,
        }

    def detect(self, image: NDArray[np.uint8]) -> Keypoints:
        """Return at most `max_keypoints` keypoints of `image`, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: `image` has another shape or dtype.
        """
        check_image(image)
        sift = cv2.SIFT.create(
            nfeatures=self.max_keypoints,
            contrastThreshold=self.contrast_threshold,
            edgeThreshold=self.edge_threshold,
        )
        found, raw = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        size = (image.shape[1], image.shape[0])
        if raw is None:
            return Keypoints(
                np.zeros((0, 2), np.float32), np.zeros((0, _DESCRIPTOR_LENGTH), np.float32), size
            )
        return self._strongest(found, np.asarray(raw, np.float32), size)

    def _strongest(
        self, found: Sequence[cv2.KeyPoint], raw: NDArray[np.float32], size: tuple[int, int]
    ) -> Keypoints:
        # OpenCV keeps every keypoint that ties with the last one, and can describe a flat patch
        # by zeros, which no scaling brings to unit norm.
        strength = np.array([keypoint.response for keypoint in found])
        order = np.argsort(-strength, kind="stable")
        order = order[raw[order].any(axis=1)][: self.max_keypoints]
        points = np.array([keypoint.pt for keypoint in found], np.float32)
        return Keypoints(points[order], root_sift(raw[order]), size)


def root_sift(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map SIFT descriptors so that their dot product is the Hellinger kernel.

    Each row is divided by its sum and square-rooted, which leaves it with unit L2 norm
    (Arandjelovic & Zisserman 2012).

    Args:
        descriptors: unnormalised descriptors, (K, 128) float32, entries >= 0, no row all zeros.

    Returns:
        (K, 128) float32, rows of unit L2 norm.
    """
    rooted: NDArray[np.float32] = np.sqrt(descriptors / descriptors.sum(axis=1, keepdims=True))
    return rooted
