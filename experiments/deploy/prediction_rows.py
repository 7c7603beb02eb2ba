"""Predictions as rows of CSV or JSON lines, in a file that holds every row once it is computed."""

from __future__ import annotations

import csv
import errno
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from experiments.console import printable


@dataclass(frozen=True)
class Prediction:
    """What is said about one photo.

    Attributes:
        path: the photo.
        top: likeliest classes and their probabilities (0..1), by falling probability; empty
            where there is an error.
        error: why there is no prediction, or None.
        likeliest: index of the first class of `top`, or None.
    """

    path: Path
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    likeliest: int | None = None


class NoReaderError(Exception):
    """The rows go to a program that has ended, as `head` does once it has its lines."""


class RowWriter(ABC):
    """Writes predictions to an open text file, and at once to where it is kept."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, predictions: Sequence[Prediction]) -> dict[Path, str]:
        """Add a row a prediction.

        Returns:
            Photos whose row cannot be written, and why not; the others have theirs.

        Raises:
            NoReaderError: the file is a pipe that nobody reads any more.
            OSError: nothing can be written to the file any more.
        """
        with _flushed(self.file):
            problems = {prediction.path: self._try(prediction) for prediction in predictions}
        return {path: problem for path, problem in problems.items() if problem is not None}

    def _try(self, prediction: Prediction) -> str | None:
        """Write a row; return why it cannot be, or None."""
        try:
            self._write(prediction)
        except (ValueError, csv.Error) as error:
            return f"its row cannot be written ({error})"
        return None

    @abstractmethod
    def _write(self, prediction: Prediction) -> None: ...


class CsvWriter(RowWriter):
    """Columns file, class_1, probability_1, ... class_k, probability_k, error; with a header.

    Args:
        file: opened with newline="".
        k: classes a row.

    Raises:
        NoReaderError: as `write` does, for the header.
    """

    def __init__(self, file: TextIO, k: int) -> None:
        super().__init__(file)
        self.k = k
        self._csv = csv.writer(file, lineterminator="\n")
        columns = [
            f"{name}_{rank}" for rank in range(1, k + 1) for name in ("class", "probability")
        ]
        with _flushed(file):
            self._csv.writerow(["file", *columns, "error"])

    def _write(self, prediction: Prediction) -> None:
        cells = [cell for name, p in prediction.top for cell in (name, f"{p:.6f}")]
        padding = [""] * (2 * self.k - len(cells))
        self._csv.writerow([prediction.path, *cells, *padding, prediction.error or ""])


class JsonLinesWriter(RowWriter):
    """An object a line: file, and predictions (class and probability) or error."""

    def _write(self, prediction: Prediction) -> None:
        row: dict[str, object] = {"file": printable(prediction.path)}
        if prediction.error is not None:
            row["error"] = prediction.error
        else:
            row["predictions"] = [
                {"class": printable(name), "probability": round(p, 6)} for name, p in prediction.top
            ]
        self.file.write(json.dumps(row) + "\n")


@contextmanager
def _flushed(file: TextIO) -> Iterator[None]:
    """Flush what is written inside; say of a pipe without a reader that it is one."""
    try:
        yield
        file.flush()
    except OSError as error:
        if error.errno == errno.EPIPE or (os.name == "nt" and error.errno == errno.EINVAL):
            raise NoReaderError from error  # Windows may call it an invalid argument
        raise
