"""Predict the test photos of a data set by keypoint matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.matching.classifier import KeypointClassifier
from experiments.matching.detectors import DETECTORS
from experiments.matching.keypoints import Detector
from experiments.storage import load_checkpoint, save_checkpoint
from lca_fused.photos import reading

_TOP = 5
_IMAGE_SIDE = 320  # pixels
_SAVED_EVERY = 16  # photos; an aborted run matches at most that many again

ReadImage = Callable[[Path], NDArray[np.uint8]]


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
    checkpoint: Path | None = None,
    image_side: int = _IMAGE_SIDE,
    progress: bool = True,
    read_image: ReadImage = read_rgb,
) -> NDArray[np.int64]:
    """Fit a `KeypointClassifier` on `dataset.train` and predict `dataset.test`.

    The validation photos are not used: nothing is chosen on them here. How keypoints are matched is
    the detector's line in `DETECTORS`.

    Args:
        dataset: data set with at least one training photo; with no test photos the predictions are
            empty.
        detector: detector that finds the keypoints.
        cache_dir: folder that keeps the training photos' keypoints between runs, or None.
        checkpoint: file that keeps the predictions so far, from which an aborted run goes on; the
            caller deletes it, and gives each other set of arguments another one. None for no file.
        image_side: longer side in pixels that photos are resized to.
        progress: whether bars with photos per second are shown on stderr.
        read_image: function that reads one file as (H, W, 3) uint8 RGB.

    Returns:
        (n, 5) int64, the best classes of each test photo from the best down; (n, C) with C < 5
        classes.

    Raises:
        CheckpointError: the checkpoint cannot be read.
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
    ranked = load_checkpoint(checkpoint)["top5"] if checkpoint and checkpoint.exists() else []
    remaining = photos(dataset.test[len(ranked) :], "matching")
    for scores in classifier.scores_of(remaining):
        # Stable, so that equal scores rank by class index as in KeypointClassifier.predict.
        ranked.append(np.argsort(-scores, kind="stable")[:_TOP].tolist())
        if checkpoint and (len(ranked) % _SAVED_EVERY == 0 or len(ranked) == len(dataset.test)):
            save_checkpoint({"top5": ranked}, checkpoint)
    return np.array(ranked, np.int64).reshape(-1, min(_TOP, len(dataset.classes)))


def _classifier(detector: Detector, image_side: int) -> KeypointClassifier:
    kind = DETECTORS.get(detector.name)
    if kind is None:
        return KeypointClassifier(detector, image_side=image_side)
    return KeypointClassifier(
        detector, image_side=image_side, ratio=kind.ratio, max_distance=kind.max_distance
    )
