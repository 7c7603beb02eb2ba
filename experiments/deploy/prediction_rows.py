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
from lca_fused.prediction import Prediction


@dataclass(frozen=True)
class PhotoRow:
    """What is said about one photo.

    Attributes:
        path: file of the photo.
        prediction: what the model says of the photo; None where there is an error.
        error: reason why there is no prediction, or None.
    """

    path: Path
    prediction: Prediction | None = None
    error: str | None = None

    @property
    def top(self) -> tuple[tuple[str, float], ...]:
        """Likeliest classes and their probabilities; empty where there is an error."""
        return () if self.prediction is None else self.prediction.top


class NoReaderError(Exception):
    """The rows go to a program that has ended, as `head` does once it has its lines."""


class RowWriter(ABC):
    """Writes rows to an open text file, and at once to where it is kept."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, rows: Sequence[PhotoRow]) -> dict[Path, str]:
        """Add rows.

        Returns:
            Photos whose row cannot be written, and why not; the others have theirs.

        Raises:
            NoReaderError: the file is a pipe that nobody reads any more.
            OSError: nothing can be written to the file any more.
        """
        with _flushed(self.file):
            problems = {row.path: self._try(row) for row in rows}
        return {path: problem for path, problem in problems.items() if problem is not None}

    def _try(self, row: PhotoRow) -> str | None:
        """Write a row; return why it cannot be, or None."""
        try:
            self._write(row)
        except (ValueError, csv.Error) as error:
            return f"its row cannot be written ({error})"
        return None

    @abstractmethod
    def _write(self, row: PhotoRow) -> None: ...


class CsvWriter(RowWriter):
    """Columns file, name, accepted, class_1, probability_1, ... class_k, probability_k, error.

    The first row is a header; accepted is true or false, and where it is false the name "unknown".

    Args:
        file: the file to write to, opened with newline="".
        k: number of classes in each row.

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
            self._csv.writerow(["file", "name", "accepted", *columns, "error"])

    def _write(self, row: PhotoRow) -> None:
        cells = [cell for name, p in row.top for cell in (name, f"{p:.6f}")]
        padding = [""] * (2 * self.k - len(cells))
        said = row.prediction
        first = ["", ""] if said is None else [said.name, str(said.accepted).lower()]
        self._csv.writerow([row.path, *first, *cells, *padding, row.error or ""])


class JsonLinesWriter(RowWriter):
    """An object per line: file, and name, accepted, predictions (class, probability) or error."""

    def _write(self, row: PhotoRow) -> None:
        written: dict[str, object] = {"file": printable(row.path)}
        if row.prediction is None:
            written["error"] = row.error
        else:
            written |= {
                "name": printable(row.prediction.name),
                "accepted": row.prediction.accepted,
            }
            written["predictions"] = [
                {"class": printable(name), "probability": round(p, 6)} for name, p in row.top
            ]
        self.file.write(json.dumps(written) + "\n")


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
