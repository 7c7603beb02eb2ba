"""Predict the test photos of a data set by keypoint matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.data import images
from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.matching.classifier import KeypointClassifier
from experiments.matching.keypoints import Detector

_TOP = 5

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
        DataError: the file cannot be read as an image.
    """
    return np.asarray(images.read_image(path), np.uint8)


def evaluate_matching(
    dataset: ProductDataset,
    detector: Detector,
    *,
    cache_dir: Path | None = None,
    image_side: int = 320,
    progress: bool = True,
    read_image: ReadImage = read_rgb,
) -> Predictions:
    """Fit a `KeypointClassifier` on `dataset.train` and predict `dataset.test`.

    The validation photos are not used: nothing is chosen on them here.

    Args:
        dataset: at least one training photo; with no test photos the predictions are empty.
        detector: finds the keypoints.
        cache_dir: where the training photos' keypoints are kept between runs; None keeps none.
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

    classifier = KeypointClassifier(detector, image_side=image_side).fit(
        photos(dataset.train, "training keypoints"),
        [sample.label for sample in dataset.train],
        num_classes=len(dataset.classes),
        paths=[sample.path for sample in dataset.train],
        cache_dir=cache_dir,
    )
    scores = [classifier.scores(image) for image in photos(dataset.test, "matching")]
    return _rank(np.array(scores).reshape(-1, len(dataset.classes)))


def _rank(scores: NDArray[np.float64]) -> Predictions:
    # Stable, so that equal scores rank by class index as in KeypointClassifier.predict.
    order = np.argsort(-scores, axis=1, kind="stable").astype(np.int64)
    return Predictions(labels=order[:, 0], top5=order[:, :_TOP])
