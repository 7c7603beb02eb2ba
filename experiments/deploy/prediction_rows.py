"""Predictions as rows of CSV or JSON lines, in a file that holds every row once it is computed."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True)
class Prediction:
    """What is said about one photo.

    Attributes:
        path: the photo.
        top: likeliest classes and their probabilities (0..1), by falling probability; empty
            where there is an error.
        error: why there is no prediction, or None.
    """

    path: Path
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None


class RowWriter(ABC):
    """Writes predictions to an open text file, and at once to where it is kept."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Add a row a prediction."""
        for prediction in predictions:
            self._write(prediction)
        self.file.flush()

    @abstractmethod
    def _write(self, prediction: Prediction) -> None: ...


class CsvWriter(RowWriter):
    """Columns file, class_1, probability_1, ... class_k, probability_k, error; with a header.

    Args:
        file: opened with newline="".
        k: classes a row.
    """

    def __init__(self, file: TextIO, k: int) -> None:
        super().__init__(file)
        self.k = k
        self._csv = csv.writer(file, lineterminator="\n")
        columns = [
            f"{name}_{rank}" for rank in range(1, k + 1) for name in ("class", "probability")
        ]
        self._csv.writerow(["file", *columns, "error"])
        file.flush()

    def _write(self, prediction: Prediction) -> None:
        cells = [cell for name, p in prediction.top for cell in (name, f"{p:.6f}")]
        padding = [""] * (2 * self.k - len(cells))
        self._csv.writerow([prediction.path, *cells, *padding, prediction.error or ""])


class JsonLinesWriter(RowWriter):
    """An object a line: file, and predictions (class and probability) or error."""

    def _write(self, prediction: Prediction) -> None:
        row: dict[str, object] = {"file": str(prediction.path)}
        if prediction.error is not None:
            row["error"] = prediction.error
        else:
            row["predictions"] = [
                {"class": name, "probability": round(p, 6)} for name, p in prediction.top
            ]
        self.file.write(json.dumps(row) + "\n")
