"""One place in the table: what the finished runs of a row on a data set came to."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.table.significance import student_half_width, wilson_interval


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run on the test photos.

    Attributes:
        accuracy: share of test photos it gets right, 0..1.
        labels: (n,) int64 class indices of the test photos.
        right: (n,) which of them it gets right.
        seed: of its training; None for keypoint matching.
        images_per_second: training photos a second; None where that was not measured.
        peak_bytes: peak memory of a training step; None where that was not measured.
        device: name of the CPU or GPU it ran on; None where that was not stored.
    """

    accuracy: float
    labels: NDArray[np.int64]
    right: NDArray[np.bool_]
    seed: int | None = None
    images_per_second: float | None = None
    peak_bytes: int | None = None
    device: str | None = None

    @classmethod
    def of_cell(cls, result: Mapping[str, Any]) -> Run:
        """Return the run whose stored result (see `experiments.study.cells.run_cell`) is given."""
        labels = np.asarray(result["labels"], dtype=np.int64)
        best = np.asarray([top[0] for top in result["top5"]], dtype=np.int64)
        right = best == labels
        return cls(
            accuracy=float(right.mean()),  # earlier versions stored that of argmax, which tied
            labels=labels,
            right=right,
            seed=result["settings"].get("seed"),
            images_per_second=result.get("images_per_second"),
            peak_bytes=result.get("peak_bytes"),
            device=result.get("device"),
        )


@dataclass(frozen=True)
class NotRun:
    """Why a place in the table is empty, or lacks seeds.

    Attributes:
        short: a few words for the place itself, e.g. "no photos".
        reason: what is missing and what to do.
    """

    short: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """One place in the table.

    Attributes:
        runs: those that are done.
        not_run: why there are not more, or None.
    """

    runs: tuple[Run, ...] = ()
    not_run: NotRun | None = None

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Test accuracy of each run, 0..1."""
        return tuple(run.accuracy for run in self.runs)

    @property
    def mean(self) -> float:
        """Mean test accuracy, per cent; of at least one run."""
        return 100 * statistics.fmean(self.accuracies)

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of the mean (Student's t over runs), per cent points.

        None for fewer than two runs.
        """
        half = student_half_width(self.accuracies)
        return None if half is None else 100 * half

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval in per cent: Student's over runs, or of one run Wilson's over photos.

        Student's is cut off at 0 and 100.
        """
        half = self.half_width
        if half is not None:
            return max(self.mean - half, 0.0), min(self.mean + half, 100.0)
        low, high = self.wilson(0)
        return 100 * low, 100 * high

    @property
    def images_per_second(self) -> float | None:
        """Median over the runs that measured it, or None."""
        measured = [run.images_per_second for run in self.runs if run.images_per_second]
        return statistics.median(measured) if measured else None

    @property
    def peak_bytes(self) -> int | None:
        """The highest peak memory that any run measured, or None."""
        return max((run.peak_bytes for run in self.runs if run.peak_bytes), default=None)

    def wilson(self, index: int) -> tuple[float, float]:
        """Return the 95 % interval of one run's accuracy, 0..1: the test photos are a sample."""
        right = self.runs[index].right
        return wilson_interval(int(right.sum()), len(right))

    def right(self) -> NDArray[np.bool_]:
        """Return which photos each run gets right, (runs, n)."""
        return np.stack([run.right for run in self.runs])

    def __str__(self) -> str:
        if not self.runs:
            return f"not run: {self.not_run.short}" if self.not_run else "not run"
        half = self.half_width
        if half is None:
            low, high = self.interval
            return f"{self.mean:.1f} ({low:.1f} to {high:.1f}, n=1)"
        return f"{self.mean:.1f} ± {half:.1f} (n={len(self.runs)})"


Table = Mapping[tuple[str, str], Entry]
"""Entries by (name of the row, name of the data set)."""
