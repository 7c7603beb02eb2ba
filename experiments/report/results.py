"""The table of each data set: our rows, the paper's figures beside them, and what was not run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
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
    entries = _by_dataset(run, "entries")
    differences = _by_dataset(run, "differences")
    names = dict.fromkeys([*run.datasets, *entries])
    return [_results(run, name, entries[name], differences[name]) for name in names]


def _by_dataset(run: StoredRun, part: str) -> defaultdict[str, list[Mapping[str, Any]]]:
    """Return a part of all tables by the data set's name as cells have it."""
    found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for table in run.tables:
        for value in table.get(part, ()):
            found[_stored_name(run, table, value["dataset"])].append(value)
    return found


def _results(
    run: StoredRun,
    dataset: str,
    entries: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
) -> DatasetResults:
    rows = run.rows_of(dataset)
    finished = {name for row in rows for name in row.names}
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


def _stored_name(run: StoredRun, table: Mapping[str, Any], name: str) -> str:
    """Return a data set's name as cells have it: "folder" is stored as "folder/<its name>".

    Tables of earlier versions do not say which folder; one of several is not guessed.
    """
    stored: str | None = table.get("stored_as", {}).get(name)
    if stored is not None:
        return stored
    folders = [other for other in run.datasets if other.startswith(f"{name}/")]
    return folders[0] if len(folders) == 1 else name
