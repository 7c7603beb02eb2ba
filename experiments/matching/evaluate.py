"""Predict the test photos of a data set by keypoint matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.matching.classifier import KeypointClassifier
from experiments.matching.detectors import DETECTORS
from experiments.matching.finished import FinishedScores
from experiments.matching.keypoints import Detector
from lca_fused.photos import reading

_TOP = 5
_IMAGE_SIDE = 320  # pixels
_PHOTOS_A_FILE = 16  # what an aborted run matches again is at most that many

ReadImage = Callable[[Path], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was predicted for n photos, in their order.

    Attributes:
        labels: (n,) int64, the class of the highest score.
        top5: (n, 5) int64, the best classes from the best down; (n, C) with C < 5 classes.
    """

    labels: NDArray[np.int64]
    top5: NDArray[np.int64]


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a photo as (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file cannot be read as an image.
    """
    return np.asarray(reading.read_image(path), np.uint8)


def evaluate_matching(
    dataset: ProductDataset,
    detector: Detector,
    *,
    cache_dir: Path | None = None,
    image_side: int = _IMAGE_SIDE,
    progress: bool = True,
    read_image: ReadImage = read_rgb,
) -> Predictions:
    """Fit a `KeypointClassifier` on `dataset.train` and predict `dataset.test`.

    The validation photos are not used: nothing is chosen on them here. How keypoints are matched is
    the detector's line in `DETECTORS`. With a `cache_dir` an aborted run goes on where it stopped,
    and a finished one has its predictions again until `discard_scores`.

    Args:
        dataset: at least one training photo; with no test photos the predictions are empty.
        detector: finds the keypoints.
        cache_dir: where the training photos' keypoints are kept between runs, and the scores of the
            test photos until they are discarded; None keeps none.
        image_side: photos are resized to this longer side, in pixels.
        progress: show bars with photos per second on stderr.
        read_image: reads one file as (H, W, 3) uint8 RGB.

    Raises:
        DataError: there are no training photos.
        FileNotFoundError: with a `cache_dir`, a training photo does not exist.
        ValueError: `read_image` returns something other than (H, W, 3) uint8.
    """
    if not dataset.train:
        raise DataError(f"{dataset.name} has no training photos to match against")

    def photos(samples: tuple[Sample, ...], doing: str) -> Iterator[NDArray[np.uint8]]:
        for sample in tqdm(samples, desc=doing, unit="image", disable=not progress):
            yield read_image(sample.path)

    classifier = _classifier(detector, image_side).fit(
        photos(dataset.train, "training keypoints"),
        [sample.label for sample in dataset.train],
        num_classes=len(dataset.classes),
        paths=[sample.path for sample in dataset.train],
        cache_dir=cache_dir,
    )
    scores = _score(classifier, dataset, cache_dir, progress, read_image)
    return _rank(scores)


def discard_scores(
    dataset: ProductDataset,
    detector: Detector,
    cache_dir: Path,
    *,
    image_side: int = _IMAGE_SIDE,
) -> None:
    """Delete the scores that `evaluate_matching` kept, once its predictions are safe elsewhere.

    Args:
        dataset: as it was given there, like all arguments; nothing else's scores are touched.
        detector: see there.
        cache_dir: see there; the keypoints in it stay.
        image_side: see there.

    Raises:
        FileNotFoundError: a photo does not exist.
    """
    classifier = _classifier(detector, image_side)
    finished = FinishedScores(cache_dir, classifier, dataset.train, len(dataset.classes))
    for chunk in _chunks(dataset.test):
        finished.discard(chunk)


def _classifier(detector: Detector, image_side: int) -> KeypointClassifier:
    kind = DETECTORS.get(detector.name)
    if kind is None:
        return KeypointClassifier(detector, image_side=image_side)
    return KeypointClassifier(
        detector, image_side=image_side, ratio=kind.ratio, max_distance=kind.max_distance
    )


def _score(
    classifier: KeypointClassifier,
    dataset: ProductDataset,
    cache_dir: Path | None,
    progress: bool,
    read_image: ReadImage,
) -> NDArray[np.float64]:
    """Return the (n, C) scores of the test photos."""
    classes = len(dataset.classes)
    finished = FinishedScores(cache_dir, classifier, dataset.train, classes) if cache_dir else None
    scores = [np.zeros((0, classes))]
    with tqdm(total=len(dataset.test), desc="matching", unit="image", disable=not progress) as bar:
        for chunk in _chunks(dataset.test):
            rows = finished.load(chunk) if finished else None
            if rows is None:
                rows = _match(classifier, (read_image(sample.path) for sample in chunk), bar)
                if finished:
                    finished.save(chunk, rows)
            else:
                bar.update(len(chunk))
            scores.append(rows)
    return np.concatenate(scores)


def _chunks(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    """Yield the photos whose scores share a file."""
    for start in range(0, len(samples), _PHOTOS_A_FILE):
        yield samples[start : start + _PHOTOS_A_FILE]


def _match(
    classifier: KeypointClassifier, images: Iterator[NDArray[np.uint8]], bar: tqdm
) -> NDArray[np.float64]:
    scores = []
    for row in classifier.scores_of(images):
        scores.append(row)
        bar.update()
    return np.array(scores)


def _rank(scores: NDArray[np.float64]) -> Predictions:
    # Stable, so that equal scores rank by class index as in KeypointClassifier.predict.
    order = np.argsort(-scores, axis=1, kind="stable").astype(np.int64)
    return Predictions(labels=order[:, 0], top5=order[:, :_TOP])
