"""The table: mean and 95 % interval over seeds, a row a method, beside the paper's figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as student_t
from tabulate import tabulate

from experiments.data.catalog import CATALOG
from experiments.methods import METHODS, PAPER_DATASETS, PAPER_ROWS_WITHOUT_METHOD


@dataclass(frozen=True)
class Entry:
    """One place in the table.

    Attributes:
        accuracies: test accuracy of each seed that is done, 0..1.
        missing: why nothing is there, when nothing is.
    """

    accuracies: tuple[float, ...] = ()
    missing: str = ""

    @property
    def mean(self) -> float:
        """Mean test accuracy, per cent."""
        return 100 * statistics.fmean(self.accuracies)

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of the mean (Student's t over seeds), per cent points."""
        n = len(self.accuracies)
        if n < 2:
            return None
        deviation = 100 * statistics.stdev(self.accuracies)
        return float(student_t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)

    def __str__(self) -> str:
        if not self.accuracies:
            return "not run"
        if self.half_width is None:
            return f"{self.mean:.1f} (n=1)"
        return f"{self.mean:.1f} ± {self.half_width:.1f} (n={len(self.accuracies)})"


Table = Mapping[tuple[str, str], Entry]
"""Entries by (method, data set)."""


def to_markdown(
    table: Table, methods: Sequence[str], datasets: Sequence[str], description: Mapping[str, str]
) -> str:
    """Return the table as Markdown: ours, the paper's beside it, and what was not run and why."""
    paper = [CATALOG[name].paper_dataset for name in datasets]
    header = ["method"]
    for name, counterpart in zip(datasets, paper, strict=True):
        header += [name] + ([f"paper, {counterpart}"] if counterpart else [])
    rows = [
        _row(METHODS[method].title, [table[method, name] for name in datasets], paper, method)
        for method in methods
    ]
    if any(paper):
        rows += [_paper_only_row(title, paper) for title in PAPER_ROWS_WITHOUT_METHOD]
    lines = [f"- {key}: {value}" for key, value in description.items()]
    parts = [
        "Test accuracy in %: mean ± half the 95 % interval (Student's t) over n seeds.",
        tabulate(rows, headers=header, tablefmt="github", disable_numparse=True),
        "\n".join(lines),
        _reasons(table, methods, datasets),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_json(
    table: Table, methods: Sequence[str], datasets: Sequence[str], description: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the table as plain values for JSON."""
    return {
        "description": dict(description),
        "entries": [
            {
                "method": method,
                "dataset": name,
                "accuracies": list(entry.accuracies),
                "mean_percent": entry.mean if entry.accuracies else None,
                "half_width_95_percent": entry.half_width if entry.accuracies else None,
                "not_run": entry.missing or None,
                "paper_percent": _paper_accuracy(method, CATALOG[name].paper_dataset),
            }
            for method in methods
            for name in datasets
            for entry in [table[method, name]]
        ],
    }


def _row(
    title: str, entries: Sequence[Entry], paper: Sequence[str | None], method: str
) -> list[str]:
    paper_row = METHODS[method].paper_row
    cells = [f"{title} (paper: {paper_row})" if paper_row and any(paper) else title]
    for entry, counterpart in zip(entries, paper, strict=True):
        cells.append(str(entry))
        if counterpart:
            accuracy = _paper_accuracy(method, counterpart)
            cells.append("-" if accuracy is None else f"{accuracy:g}")
    return cells


def _paper_only_row(title: str, paper: Sequence[str | None]) -> list[str]:
    cells = [f"(paper: {title})"]
    for counterpart in paper:
        cells.append("not run: no such weights here")
        if counterpart:
            accuracy = PAPER_ROWS_WITHOUT_METHOD[title][PAPER_DATASETS.index(counterpart)]
            cells.append(f"{accuracy:g}")
    return cells


def _paper_accuracy(method: str, paper_dataset: str | None) -> float | None:
    accuracies = METHODS[method].paper_accuracy
    if accuracies is None or paper_dataset is None:
        return None
    return accuracies[PAPER_DATASETS.index(paper_dataset)]


def _reasons(table: Table, methods: Sequence[str], datasets: Sequence[str]) -> str:
    reasons: dict[str, list[str]] = {}
    for name in datasets:
        for method in methods:
            if table[method, name].missing:
                reasons.setdefault(table[method, name].missing, []).append(f"{method} on {name}")
    if not reasons:
        return ""
    lines = [f"- {', '.join(places)}: {reason}" for reason, places in reasons.items()]
    return "\n".join(["Not run:", *lines])
