"""Classify a photo by the training photo whose keypoints agree with it best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.matching.cache import KeypointCache
from experiments.matching.keypoints import Detector, Keypoints, check_image, detect_all
from experiments.matching.matcher import (
    DEFAULT_RATIO,
    DEFAULT_REPROJECTION_PX,
    Comparison,
    ReferenceStack,
    compare,
    count_inliers,
    match,
    stack_references,
)


class KeypointClassifier:
    """Nearest training photo by the number of geometrically consistent keypoint matches.

    The score of a training photo is one number that orders photos by, in turn,

    1. inliers: matches that one homography explains, counted only for the `verify` photos with
       the most matches and 0 for the others;
    2. matches: mutual nearest neighbours that pass the ratio and the distance test;
    3. similarity: mean over the query's keypoints of the cosine to the nearest keypoint of the
       photo. Without a single match anywhere, this alone decides.

    A query without keypoints has nothing to match; it resembles the photos with the fewest
    keypoints, and those score highest. The score of a class is that of its best photo. Classes
    that still tie are told apart by their index, the lowest first.

    Args:
        detector: detector that finds the keypoints.
        image_side: longer side in pixels that photos are resized to before detection.
        ratio: threshold of the ratio test, in (0, 1].
        max_distance: greatest distance between matching descriptors, positive; infinity for no
            distance test.
        reprojection_px: how far from its place an inlier may land, in pixels of the resized photo.
        verify: number of training photos per query whose inliers are counted.

    Raises:
        ValueError: `image_side` is not positive or `verify` is negative.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        image_side: int = 320,
        ratio: float = DEFAULT_RATIO,
        max_distance: float = math.inf,
        reprojection_px: float = DEFAULT_REPROJECTION_PX,
        verify: int = 10,
    ) -> None:
        if image_side <= 0:
            raise ValueError(f"image_side must be positive, got {image_side}")
        if verify < 0:
            raise ValueError(f"verify must not be negative, got {verify}")
        self.detector = detector
        self.image_side = image_side
        self.ratio = ratio
        self.max_distance = max_distance
        self.reprojection_px = reprojection_px
        self.verify = verify
        self._references: list[Keypoints] = []
        self._stack: ReferenceStack | None = None
        self._labels: NDArray[np.int64] = np.zeros(0, np.int64)
        self._num_classes = 0

    def fit(
        self,
        images: Iterable[NDArray[np.uint8]],
        labels: Sequence[int],
        *,
        num_classes: int | None = None,
        paths: Sequence[Path] | None = None,
        cache_dir: Path | None = None,
    ) -> KeypointClassifier:
        """Detect the keypoints of the training photos, or take them from the cache.

        Args:
            images: N photos, (H, W, 3) uint8 RGB; left unread where the cache has their keypoints
                and those of all that follow.
            labels: class index of each of the N photos.
            num_classes: number of classes C; the highest label + 1 if left out.
            paths: the N files `images` were read from, which the cache knows them by.
            cache_dir: folder that keypoints are kept in between runs; needs `paths`.

        Returns:
            The classifier itself.

        Raises:
            ValueError: no photos, lengths that differ, a label outside 0..C-1, a malformed image,
                or a `cache_dir` without `paths`.
            FileNotFoundError: with a `cache_dir`, one of `paths` does not exist.
        """
        self._labels = np.asarray(labels, np.int64)
        if len(self._labels) == 0:
            raise ValueError("need at least one training photo")
        self._num_classes = _count_classes(self._labels, num_classes)
        self._references = self._training_keypoints(images, paths, cache_dir)
        self._stack = stack_references(self._references)
        return self

    def scores(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Score every class for one photo, (H, W, 3) uint8 RGB; higher is better.

        Returns:
            (C,) float64. The whole part is the number of inliers, the fraction holds the rules
            that break ties. -inf for classes without a training photo.

        Raises:
            RuntimeError: not fitted yet.
            ValueError: a malformed image.
        """
        return next(self.scores_of([image]))

    def scores_of(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float64]]:
        """Yield the `scores` of each of `images`.

        Raises:
            RuntimeError: not fitted yet.
            ValueError: a malformed image.
        """
        if self._stack is None:
            raise RuntimeError("call fit before scores")
        for query in self._detect_all(images):
            best = np.full(self._num_classes, -np.inf)
            np.maximum.at(best, self._labels, self._photo_scores(query, self._stack))
            yield best

    def predict(self, image: NDArray[np.uint8]) -> int:
        """Return the class of the highest score, the lowest index among equals; see `scores`."""
        return int(self.scores(image).argmax())

    def _training_keypoints(
        self,
        images: Iterable[NDArray[np.uint8]],
        paths: Sequence[Path] | None,
        cache_dir: Path | None,
    ) -> list[Keypoints]:
        if cache_dir is None:
            photos = (image for image, _ in zip(images, self._labels, strict=True))
            return list(self._detect_all(photos))
        if paths is None or len(paths) != len(self._labels):
            raise ValueError("a cache needs the path of every training photo")
        cache = KeypointCache(cache_dir, self.detector, self.image_side)
        return cache.keypoints(paths, iter(images), self._detect_all)

    def _detect_all(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[Keypoints]:
        resized = (resize_longer_side(image, self.image_side) for image in images)
        return detect_all(self.detector, resized)

    def _photo_scores(self, query: Keypoints, stack: ReferenceStack) -> NDArray[np.float64]:
        """Return the (N,) float64 scores of the training photos."""
        if len(query) == 0:
            return np.array([1.0 / (2.0 + len(reference)) for reference in self._references])
        comparison = compare(query, stack, ratio=self.ratio, max_distance=self.max_distance)
        # A likeness of at most 1/2 is never worth a match, and K of those never an inlier.
        likeness = (1.0 + comparison.similarity) / 4.0
        tie_break = (comparison.matches + likeness) / (len(query) + 1.0)
        return tie_break + self._inliers(query, comparison)

    def _inliers(self, query: Keypoints, comparison: Comparison) -> NDArray[np.int64]:
        inliers = np.zeros(len(self._references), np.int64)
        ranking = np.lexsort((-comparison.similarity, -comparison.matches))
        for i in ranking[: self.verify]:
            reference = self._references[i]
            pairs = match(query, reference, ratio=self.ratio, max_distance=self.max_distance)
            inliers[i] = count_inliers(
                query, reference, pairs, reprojection_px=self.reprojection_px
            )
        return inliers


def resize_longer_side(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 so that the longer side has `side` pixels, whatever it had before.

    Raises:
        ValueError: a malformed image.
    """
    check_image(image)
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _count_classes(labels: NDArray[np.int64], num_classes: int | None) -> int:
    count = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.min() < 0 or labels.max() >= count:
        raise ValueError(f"labels must be in 0..{count - 1}")
    return count
