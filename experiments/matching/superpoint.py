"""SuperPoint keypoints (DeTone, Malisiewicz & Rabinovich 2018), the detector of the paper."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.matching.keypoints import Keypoints, check_image
from experiments.matching.superpoint_network import load_network
from experiments.matching.superpoint_weights import find_weights
from experiments.networks.weights import fingerprint

_DESCRIPTOR_LENGTH = 256
_CELL = 8  # pixels; the network sees nothing in a photo with a side below
_BORDER = 4  # pixels at each side whose keypoints are artefacts of the network's padding


class SuperPointDetector:
    """The strongest SuperPoint keypoints of a photo.

    Source: D. DeTone, T. Malisiewicz and A. Rabinovich, "SuperPoint: Self-Supervised Interest
    Point Detection and Description", CVPR workshops 2018; the network is that of the optional
    package transformers. It runs in float32; a CPU and a GPU differ by rounding. The
    last W % 8 columns and H % 8 rows are not looked at, and no keypoint is nearer than 4 pixels to
    the border of the rest.

    The network is loaded with the first photo, so that a detector whose keypoints are cached
    costs nothing.

    Args:
        weights: where the network's weights are, see `superpoint_weights.find_weights`.
        max_keypoints: most keypoints that are kept, those of the highest probability first.
        threshold: probability above which a pixel is a keypoint.
        nms_radius: radius in pixels around a keypoint in which no weaker one is kept.
        batch_size: number of photos of one size that the network takes at a time.
        device: device that the network runs on.

    Raises:
        WeightsNotGivenError: `weights` is None; the message says what to fetch.
        WeightsError: `weights` does not exist.
        ValueError: `max_keypoints` or `batch_size` is not positive, `threshold` not in [0, 1) or
            `nms_radius` negative.
    """

    def __init__(
        self,
        weights: Path | None,
        *,
        max_keypoints: int = 300,
        threshold: float = 0.005,
        nms_radius: int = 4,
        batch_size: int = 16,
        device: torch.device | str = "cpu",
    ) -> None:
        if max_keypoints <= 0 or batch_size <= 0:
            raise ValueError(
                f"max_keypoints and batch_size must be positive, got {max_keypoints} and "
                f"{batch_size}"
            )
        if not 0.0 <= threshold < 1.0:
            raise ValueError(f"threshold must be in [0, 1), got {threshold}")
        if nms_radius < 0:
            raise ValueError(f"nms_radius must not be negative, got {nms_radius}")
        self.max_keypoints = max_keypoints
        self.threshold = threshold
        self.nms_radius = nms_radius
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._weights = find_weights(weights)
        self._fingerprint = fingerprint(self._weights)

    @property
    def name(self) -> str:
        """Short name for tables and file names."""
        return "superpoint"

    @property
    def params(self) -> Mapping[str, str | int | float]:
        """Everything besides the photo that the keypoints depend on."""
        return {
            "max_keypoints": self.max_keypoints,
            "threshold": self.threshold,
            "nms_radius": self.nms_radius,
            "weights": self._fingerprint,
        }

    def detect(self, image: NDArray[np.uint8]) -> Keypoints:
        """Return at most `max_keypoints` keypoints of `image`, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: `image` has another shape or dtype.
            WeightsError: the network cannot be built from the weights.
        """
        return self.detect_batch([image])[0]

    def detect_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Keypoints]:
        """Return what `detect` finds in each of `images`; those of one size share a forward pass.

        Raises:
            ValueError: an image has another shape or dtype.
            WeightsError: the network cannot be built from the weights.
        """
        for image in images:
            check_image(image)
        found: dict[int, Keypoints] = {}
        for batch in _batches_of_one_size(images, self.batch_size):
            found.update(zip(batch, self._forward([images[i] for i in batch]), strict=True))
        return [found[i] for i in range(len(images))]

    @cached_property
    def _network(self) -> nn.Module:
        network = load_network(self._weights, threshold=self.threshold, nms_radius=self.nms_radius)
        return network.to(self.device)

    def _forward(self, images: list[NDArray[np.uint8]]) -> list[Keypoints]:
        height, width = images[0].shape[:2]
        if min(height, width) < _CELL:
            return [_nothing((width, height)) for _ in images]
        with torch.inference_mode(), _repeatable_convolutions():
            output = self._network(_pixels(images, self.device))
        points = _in_pixels(output.keypoints.cpu().numpy(), (width, height))
        present = output.mask.bool().cpu().numpy() & _inside(points, (width, height))
        scores, descriptors = output.scores.cpu().numpy(), output.descriptors.cpu().numpy()
        found = []
        for i in range(len(images)):
            kept = self._strongest(present[i], scores[i], descriptors[i])
            found.append(Keypoints(points[i, kept], descriptors[i, kept], (width, height)))
        return found

    def _strongest(
        self,
        present: NDArray[np.bool_],
        scores: NDArray[np.float32],
        descriptors: NDArray[np.float32],
    ) -> NDArray[np.int64]:
        # Where all activations are zero so is the descriptor; no scaling brings it to unit norm.
        usable = np.flatnonzero(present & descriptors.any(axis=1))
        order = np.argsort(-scores[usable], kind="stable")[: self.max_keypoints]
        return usable[order]


def _batches_of_one_size(
    images: Sequence[NDArray[np.uint8]], batch_size: int
) -> Iterator[list[int]]:
    """Yield the indices of all images, at most `batch_size` at a time, each time of one size."""
    indices: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, image in enumerate(images):
        indices[image.shape].append(i)
    for same in indices.values():
        for start in range(0, len(same), batch_size):
            yield same[start : start + batch_size]


def _pixels(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """Return (N, 3, H, W) float32 in 0..1, the grey photo in every channel: what is looked at."""
    grey = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images])
    return torch.from_numpy(grey).to(device).float().div(255.0)[:, None].expand(-1, 3, -1, -1)


def _in_pixels(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return whole pixels: transformers gives pixels up to 4.45 and fractions of `size` since."""
    # Unambiguous: a fraction is below 1, and no keypoint is nearer than 4 pixels to the border.
    fractions = points.size > 0 and points.max() < 1.0
    pixels = points * np.array(size) if fractions else points
    return np.rint(pixels).astype(np.float32)


def _inside(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return whether (..., 2) points keep clear of the border; transformers checks two sides."""
    seen = np.array(size) // _CELL * _CELL
    inside = (points >= _BORDER) & (points < seen - _BORDER)
    return np.asarray(inside.all(axis=-1), np.bool_)


def _repeatable_convolutions() -> AbstractContextManager[None]:
    """Same photo, same keypoints, on a GPU too: one algorithm, and float32 throughout."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def _nothing(size: tuple[int, int]) -> Keypoints:
    return Keypoints(
        np.zeros((0, 2), np.float32), np.zeros((0, _DESCRIPTOR_LENGTH), np.float32), size
    )
