from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.matching import cache, evaluate, matcher
from experiments.matching.cache import cache_file, cache_key, load_keypoints, save_keypoints
from experiments.matching.classifier import KeypointClassifier, resize_longer_side
from experiments.matching.evaluate import evaluate_matching
from experiments.matching.keypoints import Keypoints
from experiments.matching.matcher import compare, count_inliers, match, stack_references
from experiments.matching.sift import SiftDetector, root_sift
from experiments.storage import CheckpointError
from lca_fused.photos.reading import ImageError

SIDE = 240
LENGTH = 128


def product(seed: int, side: int = SIDE) -> np.ndarray:
    """A packshot: polygons and words in random colours."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), rng.integers(80, 200, 3), np.uint8)
    for _ in range(25):
        corners = rng.integers(0, side, 2) + rng.integers(-40, 40, (rng.integers(3, 7), 2))
        cv2.fillPoly(image, [corners.astype(np.int32)], rng.integers(0, 256, 3).tolist())
    for _ in range(6):
        word = "".join(chr(c) for c in rng.integers(65, 91, 5))
        place = rng.integers(0, side - 60, 2).tolist()
        cv2.putText(image, word, place, 0, 0.8, rng.integers(0, 256, 3).tolist(), 2)
    return image


def warp_of(seed: int, side: int = SIDE) -> np.ndarray:
    """A homography that moves each corner inwards by up to a seventh of the side."""
    rng = np.random.default_rng(seed)
    corners = np.float32([[0, 0], [side, 0], [side, side], [0, side]])
    inwards = np.float32([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    moved = corners + inwards * rng.uniform(0, side / 7, (4, 2)).astype(np.float32)
    return cv2.getPerspectiveTransform(corners, moved)


def shot(image: np.ndarray, seed: int) -> np.ndarray:
    """A photo of the packshot: seen at an angle, with noise."""
    height, width = image.shape[:2]
    seen = cv2.warpPerspective(image, warp_of(seed), (width, height), borderValue=(128, 128, 128))
    noise = np.random.default_rng(seed).normal(0, 4, image.shape)
    return np.clip(seen + noise, 0, 255).astype(np.uint8)


def blank(value: int = 128) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), value, np.uint8)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def keypoints(descriptors: np.ndarray, points: np.ndarray | None = None) -> Keypoints:
    if points is None:
        points = np.random.default_rng(9).uniform(0, 200, (len(descriptors), 2))
    return Keypoints(points.astype(np.float32), descriptors.astype(np.float32), (200, 200))


def axes(*indices: int) -> np.ndarray:
    """Descriptors along the given axes: equal or perpendicular, nothing between."""
    return np.eye(LENGTH, dtype=np.float32)[list(indices)]


def mixed(cosine: float, near: int, rest: int) -> np.ndarray:
    """One descriptor of the given cosine to axis `near`, the remainder along axis `rest`."""
    return cosine * axes(near) + np.sqrt(1 - cosine**2) * axes(rest)


class TableDetector:
    """Knows an image by its grey value and answers from a table; counts its calls."""

    name = "table"

    def __init__(self, table: Mapping[int, Keypoints]) -> None:
        self.table = table
        self.params: dict[str, str | int | float] = {}
        self.calls = 0

    def detect(self, image: np.ndarray) -> Keypoints:
        self.calls += 1
        return self.table[int(image[0, 0, 0])]


def table_classifier(
    query: Keypoints,
    references: list[Keypoints],
    labels: list[int] | None = None,
    **settings: float,
) -> tuple[KeypointClassifier, np.ndarray]:
    """A classifier fitted on `references` (one class each by default) and the query's image."""
    detector = TableDetector({200: query, **dict(enumerate(references))})
    images = [blank(value) for value in range(len(references))]
    labels = list(range(len(references))) if labels is None else labels
    return KeypointClassifier(detector, **settings).fit(images, labels), blank(200)


# Keypoints


@pytest.mark.parametrize(
    ("points", "descriptors", "message"),
    [
        (np.zeros((1, 2)), axes(0), "float32"),
        (np.zeros((1, 3), np.float32), axes(0), r"\(K, 2\)"),
        (np.zeros((1, 2), np.float32), axes(0, 1), "K = 1"),
        (np.zeros((1, 2), np.float32), 2 * axes(0), "unit L2 norm"),
    ],
)
def test_malformed_keypoints_are_refused(points, descriptors, message):
    with pytest.raises(ValueError, match=message):
        Keypoints(points, descriptors, (10, 10))


# SIFT


def test_root_sift_is_the_square_root_of_the_l1_normalised_descriptor():
    raw = np.random.default_rng(0).integers(0, 256, (5, LENGTH)).astype(np.float32)
    rooted = root_sift(raw)
    expected = [[np.sqrt(float(entry) / float(sum(row))) for entry in row] for row in raw]
    np.testing.assert_allclose(rooted, expected, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rooted, axis=1), 1.0, atol=1e-5)


def test_sift_finds_the_strongest_keypoints_inside_the_photo():
    image = product(0)[:200]
    few, many = SiftDetector(max_keypoints=40).detect(image), SiftDetector(1000).detect(image)
    assert len(few) == 40
    assert 100 < len(many) <= 1000
    assert few.size == (SIDE, 200)
    assert few.descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(many.descriptors, axis=1), 1.0, atol=1e-5)
    assert (many.points >= 0).all()
    assert (many.points <= (SIDE, 200)).all()
    np.testing.assert_array_equal(few.points, many.points[:40])


def test_the_cap_holds_where_many_keypoints_tie():
    tiled = np.tile(product(1, 80), (4, 4, 1))
    assert len(SiftDetector(max_keypoints=50).detect(tiled)) == 50


def test_a_blank_photo_has_empty_arrays_of_the_right_shape():
    found = SiftDetector().detect(blank())
    assert found.points.shape == (0, 2)
    assert found.descriptors.shape == (0, LENGTH)
    assert found.points.dtype == found.descriptors.dtype == np.float32


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_malformed_images_are_refused(image):
    with pytest.raises(ValueError, match="uint8 RGB"):
        SiftDetector().detect(image)


def test_sift_needs_a_positive_number_of_keypoints():
    with pytest.raises(ValueError, match="positive, got 0"):
        SiftDetector(max_keypoints=0)


# Matching


def brute_force(
    query: np.ndarray, reference: np.ndarray, ratio: float, max_distance: float = np.inf
) -> list[tuple[int, int]]:
    distances = np.zeros((len(query), len(reference)))
    for i, a in enumerate(query.astype(np.float64)):
        for j, b in enumerate(reference.astype(np.float64)):
            distances[i, j] = np.sqrt(((a - b) ** 2).sum())
    pairs = []
    for i, row in enumerate(distances):
        nearest, second, *_ = np.argsort(row)
        near = row[nearest] < min(ratio * row[second], max_distance)
        if near and distances[:, nearest].argmin() == i:
            pairs.append((i, int(nearest)))
    return pairs


def noisy_pair(seed: int, queries: int = 70, references: int = 50) -> tuple[Keypoints, Keypoints]:
    """Descriptors of which the first 40 correspond, under noise from none to overwhelming."""
    rng = np.random.default_rng(seed)
    reference = np.abs(rng.normal(size=(references, LENGTH)))
    query = np.abs(rng.normal(size=(queries, LENGTH)))
    noise = np.abs(rng.normal(size=(40, LENGTH))) * np.linspace(0, 4, 40)[:, None]
    query[:40] = reference[:40] + noise
    return keypoints(unit(query[rng.permutation(queries)])), keypoints(unit(reference))


@pytest.mark.parametrize(
    ("ratio", "by_distance"),
    [(ratio, {}) for ratio in (0.6, 0.8, 0.95, 1.0)]
    + [(r, {"max_distance": d}) for r, d in [(1.0, 0.3), (1.0, 0.5), (0.8, 0.4), (1.0, 2.0)]],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_match_agrees_with_brute_force(seed, ratio, by_distance):
    query, reference = noisy_pair(seed)
    pairs = match(query, reference, ratio=ratio, **by_distance)
    expected = brute_force(query.descriptors, reference.descriptors, ratio, **by_distance)
    assert pairs.dtype == np.int64
    assert 5 < len(expected) < 50
    assert pairs.tolist() == [list(pair) for pair in expected]
    comparison = compare(query, stack_references([reference]), ratio=ratio, **by_distance)
    assert comparison.matches.tolist() == [len(expected)]


def test_the_distance_test_is_off_unless_asked_for():
    opposite = keypoints(axes(0)), keypoints(-axes(0))
    assert len(match(*opposite)) == len(match(*opposite, max_distance=2.1)) == 1
    assert len(match(*opposite, max_distance=1.9)) == 0


def test_a_smaller_distance_and_a_lower_ratio_are_stricter():
    query, reference = noisy_pair(3)
    counts = [len(match(query, reference, ratio=1.0, max_distance=d)) for d in (0.2, 0.4, 0.6)]
    assert 0 < counts[0] < counts[1] < counts[2]
    counts = [len(match(query, reference, ratio=ratio)) for ratio in (0.5, 0.8, 1.0)]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize(
    ("query", "reference", "expected"),
    [
        (axes(), axes(0, 1), []),
        (axes(0, 1), axes(), []),
        (axes(), axes(), []),
        (axes(3), axes(3), [[0, 0]]),  # no second nearest: passes
        (axes(0, 1), axes(1, 0), [[0, 1], [1, 0]]),
        (axes(0, 0, 1), axes(2, 0), [[0, 1]]),  # equal queries: one match, the first
        (axes(0, 1), axes(0, 0, 1), [[1, 2]]),  # equal references: indistinct
        (axes(0), axes(1, 2), []),  # equally far from everything
    ],
)
def test_match_at_the_edges(query, reference, expected):
    pairs = match(keypoints(query), keypoints(reference))
    assert pairs.shape == (len(expected), 2)
    assert pairs.dtype == np.int64
    assert pairs.tolist() == expected


def test_equal_references_are_indistinct_whatever_rounding_makes_of_their_cosine():
    descriptors = unit(np.random.default_rng(5).normal(size=(200, LENGTH)))
    cosines = descriptors @ descriptors.T
    assert (cosines.diagonal() > 1).any()
    twice = keypoints(np.repeat(descriptors, 2, axis=0))
    assert len(match(keypoints(descriptors), twice)) == 0


def test_match_and_compare_refuse_what_makes_no_sense():
    query, reference = noisy_pair(0)
    short = keypoints(np.eye(4)[:2])
    for ratio in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="ratio"):
            match(query, reference, ratio=ratio)
    for max_distance in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="max_distance"):
            match(query, reference, max_distance=max_distance)
        with pytest.raises(ValueError, match="max_distance"):
            compare(query, stack_references([reference]), max_distance=max_distance)
    with pytest.raises(ValueError, match="128 in the query, 4 in the reference"):
        match(query, short)
    with pytest.raises(ValueError, match="one length"):
        stack_references([reference, short])
    with pytest.raises(ValueError, match="one length"):
        stack_references([])


def references_of_all_sizes() -> tuple[Keypoints, list[Keypoints]]:
    query, full = noisy_pair(4)
    sizes = (50, 0, 1, 7, 50, 30, 2, 0)
    return query, [keypoints(full.descriptors[:size]) for size in sizes]


@pytest.mark.parametrize("block", [1, 8000, 1 << 20])
def test_compare_is_match_with_every_photo_at_once(monkeypatch, block):
    monkeypatch.setattr(matcher, "_BLOCK_SIMILARITIES", block)
    query, references = references_of_all_sizes()
    comparison = compare(query, stack_references(references))
    expected = [len(match(query, reference)) for reference in references]
    assert comparison.matches.tolist() == expected
    assert len(set(expected)) > 3
    for similarity, reference in zip(comparison.similarity, references, strict=True):
        cosines = query.descriptors.astype(np.float64) @ reference.descriptors.T
        mean = cosines.max(axis=1).mean() if len(reference) else -1.0
        assert similarity == pytest.approx(mean, abs=1e-6)


def test_compare_of_a_query_without_keypoints_finds_nothing():
    _, references = references_of_all_sizes()
    comparison = compare(keypoints(axes()), stack_references(references))
    assert comparison.matches.tolist() == [0] * len(references)
    assert comparison.similarity.tolist() == [-1.0] * len(references)


# Geometry


@pytest.mark.parametrize(
    "test", [{}, {"ratio": 1.0, "max_distance": 0.5}], ids=["ratio", "distance"]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matches_of_a_warped_photo_follow_the_homography(seed, test):
    image = product(seed)
    reference, query = (SiftDetector().detect(photo) for photo in (image, shot(image, seed)))
    pairs = match(query, reference, **test)
    expected = cv2.perspectiveTransform(reference.points[pairs[:, 1]][None], warp_of(seed))[0]
    errors = np.linalg.norm(query.points[pairs[:, 0]] - expected, axis=1)
    assert len(pairs) > 60
    assert (errors < 2).mean() > 0.85
    places = len(np.unique(query.points[pairs[errors < 2, 0]], axis=0))
    assert places > 40
    assert count_inliers(query, reference, pairs) >= 0.95 * places


def test_an_unrelated_photo_has_few_inliers():
    photos = [SiftDetector().detect(product(seed)) for seed in range(6)]
    for query, reference in permutations(photos, 2):
        assert count_inliers(query, reference, match(query, reference)) <= 10


def points_in(rng: np.random.Generator, count: int = 40) -> np.ndarray:
    return rng.uniform(0, 300, (count, 2))


def inliers_between(source: np.ndarray, target: np.ndarray, **settings: float) -> int:
    descriptors = axes(*range(len(source)))
    pairs = np.stack([np.arange(len(source))] * 2, axis=1)
    return count_inliers(
        keypoints(descriptors, source), keypoints(descriptors, target), pairs, **settings
    )


def test_inliers_are_the_pairs_within_the_reprojection_error():
    rng = np.random.default_rng(0)
    source = points_in(rng, 60)
    target = cv2.perspectiveTransform(source[None], warp_of(0, 300))[0]
    target[:20] += 40 * unit(rng.normal(size=(20, 2)))
    assert inliers_between(source, target) == 40
    assert inliers_between(source, target, reprojection_px=100) > 40


def test_a_place_described_twice_counts_once():
    points = points_in(np.random.default_rng(0), 12)
    assert inliers_between(np.repeat(points, 3, axis=0), np.repeat(points, 3, axis=0)) == 12


def test_a_product_upside_down_is_still_the_product():
    source = points_in(np.random.default_rng(0))
    assert inliers_between(source, 300 - source) == 40


@pytest.mark.parametrize(
    "degenerate",
    [
        lambda points: points[:3],
        lambda points: points[:0],
        lambda points: points * (0, 1),
        lambda points: points * (0, 1) + np.sin(points) * (0.3, 0),
        lambda points: np.repeat(points[:3], 5, axis=0),
    ],
    ids=["three", "none", "line", "almost-line", "three-repeated"],
)
def test_points_that_fix_no_homography_have_no_inliers(degenerate):
    points = degenerate(points_in(np.random.default_rng(1)))
    assert inliers_between(points, points) == 0


@pytest.mark.parametrize(
    "onto",
    [
        lambda points: points * (-1, 1) + (300, 0),
        lambda points: points * 0.02,
        lambda points: points * 30,
        lambda points: points * (1, 0),
        lambda points: points * 0 + 7,
    ],
    ids=["mirrored", "shrunk", "enlarged", "onto-line", "onto-point"],
)
def test_homographies_no_photo_shows_have_no_inliers(onto):
    points = points_in(np.random.default_rng(1))
    assert inliers_between(points, onto(points)) == 0


def test_inliers_do_not_depend_on_what_was_computed_before():
    rng = np.random.default_rng(2)
    source, target = points_in(rng, 80), points_in(rng, 80)
    counts = set()
    for seed in range(20):
        cv2.setRNGSeed(seed)
        counts.add(inliers_between(source, target))
        inliers_between(target, source)
    assert len(counts) == 1


@pytest.mark.parametrize("reprojection_px", [0.0, -1.0])
def test_the_reprojection_error_must_be_positive(reprojection_px):
    points = points_in(np.random.default_rng(1))
    with pytest.raises(ValueError, match="positive"):
        inliers_between(points, points, reprojection_px=reprojection_px)


# Classifier


def test_the_right_product_among_six_is_found_from_other_angles():
    products = [product(seed) for seed in range(6)]
    classifier = KeypointClassifier(SiftDetector()).fit(products, range(6))
    for label, image in enumerate(products):
        scores = classifier.scores(shot(image, 10 + label))
        assert scores.shape == (6,)
        assert classifier.predict(shot(image, 10 + label)) == label
        assert scores[label] > 3 * np.delete(scores, label).max()


def test_a_class_scores_as_its_best_photo():
    products = [product(0), product(1), product(2)]
    classifier = KeypointClassifier(SiftDetector())
    alone = classifier.fit(products, [0, 1, 2]).scores(shot(product(2), 5))
    shared = classifier.fit(products, [1, 0, 1]).scores(shot(product(2), 5))
    assert shared.tolist() == [alone[1], alone[2]]


def test_two_runs_give_the_same_scores():
    def run() -> list[list[float]]:
        classifier = KeypointClassifier(SiftDetector()).fit(
            [product(s) for s in range(4)], range(4)
        )
        return [classifier.scores(shot(product(s), 20)).tolist() for s in range(6)]

    assert run() == run()


def grid(count: int) -> np.ndarray:
    return np.stack(np.divmod(np.arange(count), 5), axis=1) * 30.0


def test_the_classifier_matches_by_its_settings():
    near = mixed(0.9, 0, 50)  # of distance 0.45 from axis 0
    query = keypoints(axes(0, 1))
    references = [keypoints(near), keypoints(np.concatenate([near, axes(90)]))]
    for max_distance, matches in [(0.4, [0, 0]), (0.5, [1, 1])]:
        classifier, image = table_classifier(query, references, max_distance=max_distance)
        assert np.floor(3 * classifier.scores(image)).tolist() == matches


def test_many_photos_score_as_one_by_one():
    classifier = KeypointClassifier(SiftDetector()).fit([product(0), product(1)], [0, 1])
    photos = [shot(product(seed), seed) for seed in range(3)]
    together = [scores.tolist() for scores in classifier.scores_of(photos)]
    assert together == [classifier.scores(photo).tolist() for photo in photos]


def test_inliers_outrank_matches():
    points = grid(20)
    scrambled = np.random.default_rng(0).permutation(points)
    query = keypoints(axes(*range(20)), points)
    more_matches = keypoints(axes(*range(20)), scrambled)
    fewer_in_place = keypoints(axes(*range(12), *range(30, 38)), points)
    classifier, image = table_classifier(query, [more_matches, fewer_in_place])
    assert classifier.predict(image) == 1
    assert np.floor(classifier.scores(image))[1] == 12

    without_geometry, _ = table_classifier(query, [more_matches, fewer_in_place], verify=0)
    assert without_geometry.predict(image) == 0
    assert (without_geometry.scores(image) < 1).all()


def test_only_the_photos_with_the_most_matches_are_verified():
    query = keypoints(axes(*range(20)), grid(20))
    references = [keypoints(axes(*range(count)), grid(20)[:count]) for count in (10, 20, 15)]
    for verify, expected in [(0, [0, 0, 0]), (1, [0, 20, 0]), (2, [0, 20, 15]), (9, [10, 20, 15])]:
        classifier, image = table_classifier(query, references, verify=verify)
        assert np.floor(classifier.scores(image)).tolist() == expected


def test_matches_break_a_tie_of_inliers():
    query = keypoints(axes(0, 1, 2, 3, 4))
    two = keypoints(np.concatenate([axes(0, 1), mixed(0.6, 2, 60), mixed(0.6, 2, 61)]))
    three = keypoints(axes(0, 1, 2))
    two_but_alike = compare(query, stack_references([two, three]))
    assert two_but_alike.matches.tolist() == [2, 3]
    classifier, image = table_classifier(query, [two, three])
    assert classifier.predict(image) == 1
    classifier, image = table_classifier(query, [three, two])
    assert classifier.predict(image) == 0


def test_one_match_more_outweighs_all_similarity():
    query = keypoints(np.concatenate([axes(0, 1), mixed(0.7, 0, 5)]))
    alike = keypoints(np.concatenate([axes(0, 0, 1, 1), mixed(0.7, 0, 5), mixed(0.7, 0, 5)]))
    matched = keypoints(axes(1, 90))
    comparison = compare(query, stack_references([alike, matched]))
    assert comparison.matches.tolist() == [0, 1]
    assert comparison.similarity[0] > comparison.similarity[1]
    classifier, image = table_classifier(query, [alike, matched])
    assert classifier.predict(image) == 1


def test_similarity_breaks_a_tie_of_matches():
    query = keypoints(axes(0, 1, 2))
    classifier, image = table_classifier(
        query, [keypoints(mixed(cosine, 0, 50)) for cosine in (0.6, 0.9, 0.7)]
    )
    assert classifier.predict(image) == 1
    assert np.argsort(-classifier.scores(image)).tolist() == [1, 2, 0]


def test_without_a_match_the_most_similar_photo_wins():
    query = keypoints(axes(0, 1, 2))
    # Every reference keypoint occurs twice, so that the ratio test leaves no match.
    references = [
        keypoints(np.repeat(mixed(cosine, 0, 50), 2, axis=0)) for cosine in (0.3, 0.5, 0.9, 0.4)
    ]
    assert compare(query, stack_references(references)).matches.tolist() == [0, 0, 0, 0]
    classifier, image = table_classifier(query, references)
    assert classifier.predict(image) == 2
    assert np.argsort(-classifier.scores(image)).tolist() == [2, 1, 3, 0]


def test_a_training_photo_without_keypoints_is_the_last_choice():
    query = keypoints(axes(0, 1))
    classifier, image = table_classifier(query, [keypoints(axes()), keypoints(axes(100, 101))])
    assert classifier.predict(image) == 1


def test_a_query_without_keypoints_goes_to_the_photo_with_the_fewest():
    references = [keypoints(axes(*range(count))) for count in (9, 5, 2, 5)]
    classifier, image = table_classifier(keypoints(axes()), references)
    assert np.argsort(-classifier.scores(image), kind="stable").tolist() == [2, 1, 3, 0]


def test_blank_photos_of_real_pixels_work_on_either_side():
    photos = [product(0), blank(), product(1)]
    classifier = KeypointClassifier(SiftDetector()).fit(photos, [0, 1, 2])
    assert classifier.predict(blank(40)) == 1
    assert classifier.predict(shot(product(1), 3)) == 2
    all_blank = KeypointClassifier(SiftDetector()).fit([blank(), blank(9)], [0, 1])
    scores = all_blank.scores(product(0))
    assert scores[0] == scores[1]
    assert np.isfinite(scores).all()


def test_a_full_tie_goes_to_the_lowest_class():
    same = keypoints(axes(0, 1))
    classifier, image = table_classifier(same, [same, same, same], labels=[2, 1, 3])
    assert classifier.predict(image) == 1


def test_a_class_without_training_photos_never_wins():
    classifier = KeypointClassifier(SiftDetector()).fit([product(0)], [1], num_classes=3)
    scores = classifier.scores(blank())
    assert scores[[0, 2]].tolist() == [-np.inf, -np.inf]
    assert classifier.predict(blank()) == 1


@pytest.mark.parametrize("shape", [(100, 50), (50, 100), (1000, 700), (320, 320), (2000, 1)])
def test_photos_are_resized_to_the_longer_side(shape):
    resized = resize_longer_side(np.zeros((*shape, 3), np.uint8), 320)
    assert max(resized.shape[:2]) == 320
    short = max(1, round(320 * min(shape) / max(shape)))
    assert min(resized.shape[:2]) == short


def test_classifier_errors_say_what_is_wrong():
    classifier = KeypointClassifier(SiftDetector())
    with pytest.raises(RuntimeError, match="fit"):
        classifier.scores(product(0))
    with pytest.raises(ValueError, match="at least one"):
        classifier.fit([], [])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        classifier.fit([product(0)], [0, 1])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        classifier.fit([product(0), product(1)], [0])
    for labels, num_classes in [([-1], None), ([2], 2)]:
        with pytest.raises(ValueError, match="labels must be in"):
            classifier.fit([product(0)], labels, num_classes=num_classes)
    with pytest.raises(ValueError, match="path"):
        classifier.fit([product(0)], [0], cache_dir=Path("unused"))
    with pytest.raises(ValueError, match="image_side"):
        KeypointClassifier(SiftDetector(), image_side=0)
    with pytest.raises(ValueError, match="verify"):
        KeypointClassifier(SiftDetector(), verify=-1)


# Cache


@pytest.fixture
def photo_files(tmp_path: Path) -> list[Path]:
    return [save_photo(tmp_path / f"{seed}.png", product(seed)) for seed in range(3)]


def save_photo(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


class CountingSift:
    name = "sift"

    def __init__(self, **settings: int) -> None:
        self.sift = SiftDetector(**settings)
        self.params = self.sift.params
        self.calls = 0

    def detect(self, image: np.ndarray) -> Keypoints:
        self.calls += 1
        return self.sift.detect(image)


def fit_cached(
    paths: list[Path], cache_dir: Path, detector: CountingSift, image_side: int = 160
) -> KeypointClassifier:
    images = (np.asarray(Image.open(path)) for path in paths)
    classifier = KeypointClassifier(detector, image_side=image_side)
    return classifier.fit(images, range(len(paths)), paths=paths, cache_dir=cache_dir)


def unread() -> Iterator[np.ndarray]:
    raise AssertionError("an image was read")
    yield


def test_the_second_fit_takes_the_keypoints_from_the_cache(photo_files, tmp_path):
    cache, query = tmp_path / "new" / "cache", shot(product(1), 7)
    first, second = CountingSift(), CountingSift()
    detected = fit_cached(photo_files, cache, first).scores(query)
    classifier = KeypointClassifier(second, image_side=160)
    classifier.fit(unread(), [0, 1, 2], paths=photo_files, cache_dir=cache)
    assert (first.calls, second.calls) == (4, 0)
    assert classifier.scores(query).tolist() == detected.tolist()
    assert [file.suffix for file in cache.iterdir()] == [".npz"]


def test_the_cache_is_bypassed_when_anything_it_depends_on_changes(photo_files, tmp_path):
    cache = tmp_path / "cache"

    def calls(paths: list[Path] = photo_files, image_side: int = 160, **settings: int) -> int:
        detector = CountingSift(**settings)
        fit_cached(paths, cache, detector, image_side)
        return detector.calls

    assert calls() == 3
    assert calls() == 0
    assert calls(max_keypoints=50) == 3
    assert calls(image_side=200) == 3
    assert calls(paths=photo_files[::-1]) == 3
    assert calls(paths=photo_files[:2]) == 2
    assert calls() == 0
    os.utime(photo_files[1], ns=(0, 0))
    assert calls() == 0, "the date is not what it depends on"
    content, status = photo_files[1].read_bytes(), photo_files[1].stat()
    photo_files[1].write_bytes(content + b"end")
    os.utime(photo_files[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert calls() == 3
    assert calls() == 0


def truncate(file: Path, _: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def flip_bytes(file: Path, _: Path) -> None:
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    file.write_bytes(content)


def of_another_data_set(file: Path, other: Path) -> None:
    file.write_bytes(other.read_bytes())


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as stored:
        return dict(stored)


def without_arrays(file: Path, _: Path) -> None:
    np.savez(file, key=arrays_of(file)["key"])


def with_fewer_photos(file: Path, _: Path) -> None:
    arrays = arrays_of(file)
    count = arrays["counts"][0]
    kept = {"points": count, "descriptors": count, "counts": 1, "sizes": 1}
    np.savez(file, **arrays | {name: arrays[name][:length] for name, length in kept.items()})


def plain_array(file: Path, _: Path) -> None:
    with file.open("wb") as opened:
        np.save(opened, np.zeros(3))


def with_wrong_counts(file: Path, _: Path) -> None:
    arrays = arrays_of(file)
    np.savez(file, **arrays | {"counts": arrays["counts"] - 1})


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_bytes,
        of_another_data_set,
        without_arrays,
        with_fewer_photos,
        plain_array,
        with_wrong_counts,
        lambda file, _: np.savez(file, **arrays_of(file) | {"counts": np.array(3)}),
        lambda file, _: file.write_bytes(b""),
        lambda file, _: file.write_bytes(b"not an archive" * 50),
    ],
)
def test_a_damaged_or_foreign_cache_is_replaced(photo_files, tmp_path, damage):
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    expected = fit_cached(photo_files, cache, CountingSift()).scores(product(0))
    fit_cached(photo_files[::-1], elsewhere, CountingSift())
    (file,), (other,) = cache.iterdir(), elsewhere.iterdir()
    damage(file, other)

    repairing, afterwards = CountingSift(), CountingSift()
    assert fit_cached(photo_files, cache, repairing).scores(product(0)).tolist() == (
        expected.tolist()
    )
    assert repairing.calls == 4
    fit_cached(photo_files, cache, afterwards)
    assert afterwards.calls == 0


def test_photos_without_keypoints_survive_the_cache(photo_files, tmp_path):
    detector = SiftDetector()
    key = cache_key(detector, 320, photo_files)
    file = cache_file(tmp_path / "cache", detector, key)
    stored = [detector.detect(photo) for photo in (blank(), product(0), blank()[:50])]
    save_keypoints(file, key, stored)
    loaded = load_keypoints(file, key, len(stored))
    assert loaded is not None
    for before, after in zip(stored, loaded, strict=True):
        np.testing.assert_array_equal(before.points, after.points)
        np.testing.assert_array_equal(before.descriptors, after.descriptors)
        assert before.size == after.size


class AbortedError(Exception):
    pass


def aborted_at(position: int, items: list[np.ndarray]) -> Iterator[np.ndarray]:
    yield from items[:position]
    raise AbortedError


@pytest.fixture
def in_pairs(tmp_path, monkeypatch) -> tuple[list[np.ndarray], list[Path]]:
    """Seven photos and their files, whose keypoints are stored two photos to a file."""
    monkeypatch.setattr(cache, "_PHOTOS_PER_FILE", 2)
    photos = [product(seed) for seed in range(7)]
    return photos, [save_photo(tmp_path / f"{n}.png", photo) for n, photo in enumerate(photos)]


def test_an_aborted_run_detects_the_finished_photos_no_second_time(tmp_path, in_pairs):
    photos, paths = in_pairs
    first, second = CountingSift(), CountingSift()
    classifier = KeypointClassifier(first, image_side=160)
    with pytest.raises(AbortedError):
        classifier.fit(aborted_at(5, photos), range(7), paths=paths, cache_dir=tmp_path / "cache")
    assert first.calls == 5
    resumed = fit_cached(paths, tmp_path / "cache", second)
    assert second.calls == 3  # the fifth was not stored with its neighbour
    expected = KeypointClassifier(SiftDetector(), image_side=160).fit(photos, range(7))
    query = shot(product(3), 8)
    assert resumed.scores(query).tolist() == expected.scores(query).tolist()


@pytest.mark.slow
def test_a_hole_in_the_cache_is_filled_with_the_right_photos(tmp_path, in_pairs):
    photos, paths = in_pairs
    fit_cached(paths, tmp_path / "cache", CountingSift())
    detector = SiftDetector()
    cache_file(tmp_path / "cache", detector, cache_key(detector, 160, paths[2:4])).unlink()
    again = CountingSift()
    resumed = fit_cached(paths, tmp_path / "cache", again)
    assert again.calls == 2
    expected = KeypointClassifier(detector, image_side=160).fit(photos, range(7))
    for seed in range(7):
        query = shot(product(seed), 8)
        assert resumed.scores(query).tolist() == expected.scores(query).tolist()


@pytest.mark.parametrize(("images", "message"), [(2, "shorter"), (4, "longer")])
def test_a_cache_refuses_more_or_fewer_images_than_paths(photo_files, tmp_path, images, message):
    classifier = KeypointClassifier(SiftDetector())
    photos = [product(seed) for seed in range(images)]
    with pytest.raises(ValueError, match=message):
        classifier.fit(photos, [0, 1, 2], paths=photo_files, cache_dir=tmp_path / "cache")


def test_a_failed_write_leaves_the_old_cache_and_no_litter(photo_files, tmp_path, monkeypatch):
    fit_cached(photo_files, tmp_path / "cache", CountingSift())
    (file,) = (tmp_path / "cache").iterdir()
    before = file.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_keypoints(file, "key", [SiftDetector().detect(product(0))])
    assert list(file.parent.iterdir()) == [file]
    assert file.read_bytes() == before


def test_a_missing_training_photo_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        cache_key(SiftDetector(), 320, [tmp_path / "missing.png"])


# Evaluation


def drawn(
    folder: Path, train: dict[int, np.ndarray], test: dict[int, np.ndarray]
) -> ProductDataset:
    """A data set of these photos by label, one a class to train on."""
    parts = [
        tuple(Sample(save_photo(folder / kind / f"{k}.png", image), k) for k, image in part.items())
        for kind, part in (("train", train), ("test", test))
    ]
    return ProductDataset("drawn", tuple("abcdefg"[: len(train)]), parts[0], (), parts[1])


@pytest.fixture
def data_set(tmp_path: Path) -> ProductDataset:
    train = {seed: product(seed) for seed in range(7)}
    return drawn(tmp_path, train, {seed: shot(product(seed), 30) for seed in (3, 0, 6, 5)})


def test_the_test_photos_are_predicted_in_order(data_set, tmp_path):
    predictions = evaluate_matching(data_set, SiftDetector(), progress=False)
    assert predictions.dtype == np.int64
    assert predictions.shape == (4, 5)
    assert predictions[:, 0].tolist() == [3, 0, 6, 5]
    assert all(len(set(row)) == 5 for row in predictions.tolist())


def test_evaluation_uses_the_cache_and_the_given_reader(data_set, tmp_path):
    read: list[str] = []

    def read_image(path: Path) -> np.ndarray:
        read.append(path.parent.name)
        return np.asarray(Image.open(path))

    for _ in range(2):
        evaluate_matching(
            data_set,
            SiftDetector(),
            cache_dir=tmp_path / "cache",
            image_side=200,
            progress=False,
            read_image=read_image,
        )
    assert read == ["train"] * 7 + ["test"] * 4 + ["test"] * 4


def abort_after(photos: int) -> Callable[[Path], np.ndarray]:
    """A reader that gives up after that many test photos."""
    read: list[Path] = []

    def read_image(path: Path) -> np.ndarray:
        if path.parent.name == "test":
            if len(read) == photos:
                raise AbortedError
            read.append(path)
        return np.asarray(Image.open(path))

    return read_image


def test_an_aborted_run_matches_the_finished_photos_no_second_time(data_set, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "_SAVED_EVERY", 2)
    settings = {"checkpoint": tmp_path / "so far.pt", "progress": False}
    with pytest.raises(AbortedError):
        evaluate_matching(data_set, SiftDetector(), read_image=abort_after(3), **settings)
    resumed = evaluate_matching(data_set, SiftDetector(), read_image=abort_after(2), **settings)
    expected = evaluate_matching(data_set, SiftDetector(), progress=False)
    assert resumed.tolist() == expected.tolist()
    again = evaluate_matching(data_set, SiftDetector(), read_image=abort_after(0), **settings)
    assert again.tolist() == expected.tolist()


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(data_set, tmp_path):
    checkpoint = tmp_path / "sift.checkpoint.pt"
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="may be deleted"):
        evaluate_matching(data_set, SiftDetector(), checkpoint=checkpoint, progress=False)


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of the folder")
def test_stored_keypoints_have_the_permissions_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        save_keypoints(tmp_path / "new" / "a.npz", "key", [SiftDetector().detect(product(0))])
    finally:
        os.umask(before)
    (file,) = (tmp_path / "new").iterdir()
    assert file.stat().st_mode & 0o777 == 0o640


def test_no_bar_is_left_for_photos_the_cache_knows(data_set, tmp_path, capsys):
    evaluate_matching(data_set, SiftDetector(), cache_dir=tmp_path / "cache", progress=False)
    evaluate_matching(data_set, SiftDetector(), cache_dir=tmp_path / "cache")
    shown = capsys.readouterr().err
    assert "training keypoints" not in shown
    assert "4/4" in shown


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_shows_the_photos_per_second(data_set, capsys, progress):
    evaluate_matching(data_set, SiftDetector(), progress=progress)
    shown = capsys.readouterr().err
    if progress:
        assert re.search(r"training keypoints: 100%.* 7/7 .*(image/s|s/image)", shown)
        assert re.search(r"matching: 100%.* 4/4 .*(image/s|s/image)", shown)
    else:
        assert shown == ""


def test_fewer_than_five_classes_and_no_test_photos(data_set):
    small = replace(data_set, classes=("a", "b"), train=data_set.train[:2], test=())
    predictions = evaluate_matching(small, SiftDetector(), progress=False)
    assert predictions.shape == (0, 2)


def test_evaluation_errors_name_what_is_missing(data_set, tmp_path):
    with pytest.raises(DataError, match="drawn has no training photos"):
        evaluate_matching(replace(data_set, train=()), SiftDetector(), progress=False)
    gone = replace(data_set, test=(Sample(tmp_path / "gone.png", 0),))
    with pytest.raises(ImageError, match=r"gone\.png"):
        evaluate_matching(gone, SiftDetector(), progress=False)
