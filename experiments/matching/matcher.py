"""Match keypoints between photos and count those that one homography explains."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.matching.keypoints import Keypoints

DEFAULT_RATIO = 0.8
DEFAULT_REPROJECTION_PX = 5.0

_BLOCK_SIMILARITIES = 1 << 20  # 4 MiB of float32: stays in the processor's cache
_MIN_MATCHES = 4  # a homography has eight degrees of freedom, a match gives two equations
_MAX_MAGNIFICATION = 400.0  # in area: no product is photographed 20 times larger than another time
_MIN_SPREAD_PX = 1.0


@dataclass(frozen=True, eq=False)
class ReferenceStack:
    """The descriptors of P photos in one array, so that one matmul compares a query to many.

    Attributes:
        descriptors: descriptors of the P photos, (P, K, D) float32, K the most keypoints any photo
            has, zeros after a photo's last.
        padding: 0 for a keypoint and -inf for padding, (P, K) float32; added to similarities.
    """

    descriptors: NDArray[np.float32]
    padding: NDArray[np.float32]

    def __len__(self) -> int:
        """Return P, the number of photos."""
        return len(self.descriptors)


class Comparison(NamedTuple):
    """How well a query agrees with each of P photos, before any geometry.

    Attributes:
        matches: number of pairs `match` finds in each photo, (P,) int64.
        similarity: mean over the query's keypoints of the cosine to the most similar keypoint of
            the photo, (P,) float64; -1 (the least a cosine can be) where either has no keypoints.
    """

    matches: NDArray[np.int64]
    similarity: NDArray[np.float64]


def stack_references(references: Sequence[Keypoints]) -> ReferenceStack:
    """Stack the descriptors of `references`, at least one photo, all with descriptors of length D.

    Raises:
        ValueError: there is no photo, or the lengths of the descriptors differ.
    """
    lengths = {reference.descriptors.shape[1] for reference in references}
    if len(lengths) != 1:
        raise ValueError(f"need photos with descriptors of one length, got {sorted(lengths)}")
    most = max(1, *(len(reference) for reference in references))
    descriptors = np.zeros((len(references), most, lengths.pop()), np.float32)
    padding = np.full((len(references), most), -np.inf, np.float32)
    for i, reference in enumerate(references):
        descriptors[i, : len(reference)] = reference.descriptors
        padding[i, : len(reference)] = 0.0
    return ReferenceStack(descriptors, padding)


def compare(
    query: Keypoints,
    stack: ReferenceStack,
    *,
    ratio: float = DEFAULT_RATIO,
    max_distance: float = math.inf,
) -> Comparison:
    """Compare a query to every photo of the stack; see `match` for the settings.

    Raises:
        ValueError: `ratio` is not in (0, 1], `max_distance` is not positive, or the descriptors'
            lengths differ.
    """
    _check(query, stack, ratio, max_distance)
    matches = np.zeros(len(stack), np.int64)
    similarity = np.full(len(stack), -1.0)
    if len(query) == 0:
        return Comparison(matches, similarity)
    for block, cosines in _similarity_blocks(query, stack):
        found = _mutual_matches(cosines, ratio, max_distance)
        matches[block] = np.bincount(found.photo, minlength=cosines.shape[1])
        similarity[block] = np.maximum(found.highest.mean(axis=0, dtype=np.float64), -1.0)
    return Comparison(matches, similarity)


def match(
    query: Keypoints,
    reference: Keypoints,
    *,
    ratio: float = DEFAULT_RATIO,
    max_distance: float = math.inf,
) -> NDArray[np.int64]:
    """Pair keypoints that are each other's nearest neighbour and pass the two tests.

    The ratio test (Lowe 2004) keeps a query keypoint only if its nearest reference descriptor is
    closer than `ratio` times the second nearest, in Euclidean distance. A reference with a single
    keypoint has no second nearest and passes. The distance test keeps only pairs nearer than
    `max_distance`. One of the two usually suffices: the ratio is SIFT's, the distance SuperPoint's.

    Args:
        query: the Kq keypoints of the query.
        reference: the Kr keypoints of the reference; Kq x Kr float32 similarities are held in
            memory.
        ratio: threshold of the ratio test, in (0, 1]; lower is stricter, 1 turns down ties alone.
        max_distance: greatest Euclidean distance between matching descriptors, which have unit norm
            (so at most 2); infinity lets every pair pass.

    Returns:
        (M, 2) int64 pairs of indices (query, reference), by ascending query index; every keypoint
        occurs at most once.

    Raises:
        ValueError: `ratio` is not in (0, 1], `max_distance` is not positive, or the descriptors'
            lengths differ.
    """
    stack = stack_references([reference])
    _check(query, stack, ratio, max_distance)
    if len(query) == 0:
        return np.zeros((0, 2), np.int64)
    (_, cosines), *_ = _similarity_blocks(query, stack)
    found = _mutual_matches(cosines, ratio, max_distance)
    return np.stack([found.query, found.reference], axis=1)


def count_inliers(
    query: Keypoints,
    reference: Keypoints,
    pairs: NDArray[np.int64],
    *,
    reprojection_px: float = DEFAULT_REPROJECTION_PX,
) -> int:
    """Count the places that the best homography takes from the query to their matches.

    RANSAC (Fischler & Bolles 1981) as OpenCV's USAC with a fixed seed: the same arguments give the
    same count, whatever was computed before.

    Args:
        query: keypoints that `pairs[:, 0]` indexes.
        reference: keypoints that `pairs[:, 1]` indexes.
        pairs: matching keypoints, (M, 2) int64, as `match` returns them.
        reprojection_px: distance in pixels from its reference keypoint within which an inlier
            lands.

    Returns:
        The number of inliers, pairs between the same two places counted once; 0 for fewer than
        four and where the homography is degenerate:
        not finite, mirroring the product, shrinking or enlarging it beyond belief, or resting on
        inliers that all lie on one line.

    Raises:
        ValueError: `reprojection_px` is not positive.
    """
    if reprojection_px <= 0:
        raise ValueError(f"reprojection_px must be positive, got {reprojection_px}")
    # SIFT describes one place once per orientation; as evidence for a homography it counts once.
    places = np.hstack([query.points[pairs[:, 0]], reference.points[pairs[:, 1]]])
    source, target = np.hsplit(np.unique(places, axis=0), 2)
    if len(source) < _MIN_MATCHES:
        return 0
    homography, mask = cv2.findHomography(source, target, _usac_params(reprojection_px))
    if homography is None:
        return 0
    inlier = mask.ravel().astype(bool)
    if _is_degenerate(np.asarray(homography, np.float64), source[inlier], target[inlier]):
        return 0
    return int(inlier.sum())


class _MutualMatches(NamedTuple):
    """Matches of one query with B photos: M index triples, and (Kq, B) highest cosines."""

    query: NDArray[np.int64]
    photo: NDArray[np.int64]
    reference: NDArray[np.int64]
    highest: NDArray[np.float32]


def _check(query: Keypoints, stack: ReferenceStack, ratio: float, max_distance: float) -> None:
    if not 0.0 < ratio <= 1.0:
        raise ValueError(f"ratio must be in (0, 1], got {ratio}")
    if not max_distance > 0.0:
        raise ValueError(f"max_distance must be positive, got {max_distance}")
    if query.descriptors.shape[1] != stack.descriptors.shape[2]:
        raise ValueError(
            f"descriptors differ in length: {query.descriptors.shape[1]} in the query, "
            f"{stack.descriptors.shape[2]} in the reference"
        )


def _similarity_blocks(
    query: Keypoints, stack: ReferenceStack
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield runs of B photos and their (Kq, B, K) cosines, -inf for padding."""
    photos, most, length = stack.descriptors.shape
    step = max(1, _BLOCK_SIMILARITIES // (len(query) * most))
    for start in range(0, photos, step):
        block = slice(start, start + step)
        cosines = query.descriptors @ stack.descriptors[block].reshape(-1, length).T
        padding = stack.padding[block].reshape(-1)
        if padding.any():  # mostly every photo has as many keypoints as are kept
            cosines += padding
        yield block, cosines.reshape(len(query), -1, most)


def _mutual_matches(
    cosines: NDArray[np.float32], ratio: float, max_distance: float
) -> _MutualMatches:
    """Find mutual nearest neighbours that pass the tests in (Kq, B, K) cosines, Kq > 0."""
    nearest = cosines.argmax(axis=2)
    highest = np.take_along_axis(cosines, nearest[..., None], axis=2)[..., 0]
    highest_for_reference = cosines.max(axis=0)
    mutual = highest == np.take_along_axis(highest_for_reference, nearest.T, axis=1).T
    query, photo = np.nonzero(mutual & _is_near(highest, max_distance))
    reference = nearest[query, photo]

    rivals = cosines[query, photo]
    rivals[np.arange(len(rivals)), reference] = -np.inf
    distinct = _is_distinct(highest[query, photo], rivals.max(axis=1), ratio)
    query, photo, reference = query[distinct], photo[distinct], reference[distinct]

    # Equal descriptors in the query tie for one reference keypoint; the first of them takes it.
    _, first = np.unique(photo * cosines.shape[2] + reference, return_index=True)
    first.sort()
    return _MutualMatches(query[first], photo[first], reference[first], highest)


def _is_distinct(
    best: NDArray[np.float32], second: NDArray[np.float32], ratio: float
) -> NDArray[np.bool_]:
    """Lowe's ratio test on cosines: between unit vectors, squared distance = 2 - 2 cosine."""
    # Rounding takes the cosine of equal descriptors above 1; a negative distance would pass.
    best_distance = np.maximum(1.0 - best, 0.0)
    second_distance = np.maximum(1.0 - second, 0.0)
    distinct: NDArray[np.bool_] = best_distance < ratio**2 * second_distance
    return distinct


def _is_near(best: NDArray[np.float32], max_distance: float) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = 2.0 * np.maximum(1.0 - best, 0.0) < max_distance * max_distance
    return near


def _usac_params(reprojection_px: float) -> cv2.UsacParams:
    params = cv2.UsacParams()
    params.threshold = reprojection_px
    params.confidence = 0.99
    params.maxIterations = 1000
    # cv2.setRNGSeed does not reach RANSAC; the generator's state and a single thread fix its draws.
    params.randomGeneratorState = 0
    params.isParallel = False
    return params


def _is_degenerate(
    homography: NDArray[np.float64], source: NDArray[np.float32], target: NDArray[np.float32]
) -> bool:
    if len(source) < _MIN_MATCHES or not np.isfinite(homography).all():
        return True
    if _spread(source) < _MIN_SPREAD_PX or _spread(target) < _MIN_SPREAD_PX:
        return True
    depth = source @ homography[2, :2] + homography[2, 2]
    # The determinant of the homography's Jacobian: how much area grows at each inlier.
    magnification = np.linalg.det(homography) / depth**3
    credible = (magnification > 1 / _MAX_MAGNIFICATION) & (magnification < _MAX_MAGNIFICATION)
    return not bool(credible.all())


def _spread(points: NDArray[np.float32]) -> float:
    """Root mean square distance in pixels of (M, 2) points from the line that fits them best."""
    singular_values = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return float(singular_values[-1] / np.sqrt(len(points)))
