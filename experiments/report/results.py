"""The table of each data set: our rows, the paper's figures beside them, and what was not run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.data.catalog import CATALOG
from experiments.report.stored import Row, StoredRun


@dataclass(frozen=True)
class NotRunRow:
    """A row of the study's table that no cell is stored of.

    Attributes:
        title: how it is printed.
        reason: why it was not run, and what to do.
        paper_percent: the paper's accuracy, or None.
    """

    title: str
    reason: str
    paper_percent: float | None


@dataclass(frozen=True)
class DatasetResults:
    """What is known of one data set.

    Attributes:
        dataset: its name.
        paper_dataset: the paper's data set that it stands beside, or None.
        rows: with a finished cell.
        paper: the paper's test accuracy in per cent, by name of the row in the study's table.
        not_run: the rows without a finished cell.
        sentences: what each trick did, as the study says it.
    """

    dataset: str
    paper_dataset: str | None
    rows: tuple[Row, ...]
    paper: Mapping[str, float]
    not_run: tuple[NotRunRow, ...]
    sentences: tuple[str, ...]

    def paper_percent(self, row: Row) -> float | None:
        """Return the paper's accuracy of `row`, or None where it has no such row."""
        return next((self.paper[name] for name in row.names if name in self.paper), None)

    def reasons(self) -> dict[str, list[str]]:
        """Return the titles of the rows that were not run, by the reason."""
        titles: dict[str, list[str]] = {}
        for row in self.not_run:
            titles.setdefault(row.reason, []).append(row.title)
        return titles


def results(run: StoredRun) -> list[DatasetResults]:
    """Return the results on every data set that the run's cells or tables name."""
    entries = [entry for table in run.tables for entry in table["entries"]]
    differences = [gain for table in run.tables for gain in table.get("differences", ())]
    names = dict.fromkeys([*run.datasets, *(_stored_name(run, entry) for entry in entries)])
    return [
        _results(
            run,
            name,
            [entry for entry in entries if _stored_name(run, entry) == name],
            [gain for gain in differences if _stored_name(run, gain) == name],
        )
        for name in names
    ]


def peak_bytes(run: StoredRun, row: Row) -> int | None:
    """Return the peak memory of a training step of `row`, or None where it was not measured."""
    costs = [cost for table in run.tables for cost in table.get("cost", ())]
    peaks = [cost.get("peak_bytes") for cost in costs if cost["method"] in row.names]
    return next((peak for peak in peaks if peak), None)


def _results(
    run: StoredRun,
    dataset: str,
    entries: Iterable[Mapping[str, Any]],
    differences: Iterable[Mapping[str, Any]],
) -> DatasetResults:
    rows = run.rows_of(dataset)
    finished = {name for row in rows for name in row.names}
    entries = list(entries)
    return DatasetResults(
        dataset=dataset,
        paper_dataset=CATALOG[dataset].paper_dataset if dataset in CATALOG else None,
        rows=rows,
        paper={
            entry["method"]: entry["paper_percent"]
            for entry in entries
            if entry.get("paper_percent") is not None
        },
        not_run=tuple(
            dict.fromkeys(
                NotRunRow(
                    entry.get("title", entry["method"]),
                    entry["not_run"],
                    entry.get("paper_percent"),
                )
                for entry in entries
                if entry.get("not_run") and entry["method"] not in finished
            )
        ),
        sentences=tuple(dict.fromkeys(gain["in_words"] for gain in differences)),
    )


def _stored_name(run: StoredRun, entry: Mapping[str, Any]) -> str:
    """Return the data set's name as cells have it: "folder" is stored as "folder/<its name>"."""
    name: str = entry["dataset"]
    return next((stored for stored in run.datasets if stored.startswith(f"{name}/")), name)
