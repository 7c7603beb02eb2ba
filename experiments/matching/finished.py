"""Scores of the test photos matched so far, so that an aborted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.dataset import Sample
from experiments.matching.cache import cache_key, save_arrays
from experiments.matching.classifier import KeypointClassifier

_FORMAT = 1


class FinishedScores:
    """Scores of a few test photos a file, kept until they are discarded.

    They are known by everything they depend on: the classifier's settings, the photos and labels
    it was fitted on, and the test photos.

    Args:
        directory: where they are kept.
        classifier: whose scores they are.
        train: what it was fitted on.
        num_classes: C.

    Raises:
        FileNotFoundError: a training photo does not exist.
    """

    def __init__(
        self,
        directory: Path,
        classifier: KeypointClassifier,
        train: Sequence[Sample],
        num_classes: int,
    ) -> None:
        self.directory = directory
        self._classifier = classifier
        self._made_of = [
            _FORMAT,
            cv2.__version__,
            dict(classifier.settings),
            num_classes,
            [sample.label for sample in train],
            self._photos(train),
        ]

    def load(self, samples: Sequence[Sample]) -> NDArray[np.float64] | None:
        """Return the (n, C) scores of `samples`; None where they are not stored."""
        try:
            with np.load(self._file(samples), allow_pickle=False) as stored:
                return np.asarray(stored["scores"], np.float64)
        except Exception:  # zipfile, zlib and NumPy raise nearly anything on damaged bytes
            return None

    def save(self, samples: Sequence[Sample], scores: NDArray[np.float64]) -> None:
        """Store the (n, C) scores of `samples`.

        Raises:
            FileNotFoundError: a photo does not exist.
            OSError: the directory cannot be made or written to.
        """
        save_arrays(self._file(samples), scores=scores)

    def discard(self, samples: Sequence[Sample]) -> None:
        """Delete what is stored for `samples`, if anything is.

        Raises:
            FileNotFoundError: a photo does not exist.
        """
        self._file(samples).unlink(missing_ok=True)

    def _file(self, samples: Sequence[Sample]) -> Path:
        made_of = json.dumps([self._made_of, self._photos(samples)], sort_keys=True)
        digest = hashlib.sha256(made_of.encode()).hexdigest()
        return self.directory / f"{self._classifier.detector.name}-scores-{digest[:32]}.npz"

    def _photos(self, samples: Sequence[Sample]) -> str:
        paths = [sample.path for sample in samples]
        return cache_key(self._classifier.detector, self._classifier.image_side, paths)
