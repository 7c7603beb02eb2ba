"""What a run left on disk: results, grouped into rows, the tables of studies, and a finetuning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from experiments.command_lines import command_line, flatten
from experiments.methods import METHODS, Row, paper_accuracy
from experiments.report.table import in_words, read_table
from experiments.results import Entry, Result, Table, model_folder, steps
from lca_fused.pretrained import CONFIG_FILE

REPORT_FILE = "report.html"
"""Where the report goes, unless it is told another place."""

FINETUNED_FILE = "finetune.json"
"""Where finetune.py stores the name of its last result."""

_UNTOLD = frozenset({"seed", "photos", "weights"})  # fingerprints tell a reader nothing


_T = TypeVar("_T")


class RunError(ValueError):
    """There is nothing in the folder that a report could be made from."""


@dataclass(frozen=True)
class Run:
    """All that a report is made from.

    Attributes:
        folder: folder of everything that the run computed.
        entries: rows with a result, sorted by data set, then in the order of `METHODS`.
        tables: the studies' tables.
        finetuning: the result of the last finetuning, or None.
        problems: files that could not be used, and why; one sentence each.
    """

    folder: Path
    entries: tuple[Entry, ...]
    tables: tuple[Table, ...] = ()
    finetuning: Result | None = None
    problems: tuple[str, ...] = ()

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets with a result."""
        return tuple(dict.fromkeys(entry.dataset for entry in self.entries))

    @property
    def results(self) -> list[Result]:
        """All results."""
        return [result for entry in self.entries for result in entry.results]

    def entries_of(self, dataset: str) -> tuple[Entry, ...]:
        """Return the rows with a result on one data set."""
        return tuple(entry for entry in self.entries if entry.dataset == dataset)


@dataclass(frozen=True)
class DatasetResults:
    """What is known of one data set.

    Attributes:
        dataset: name of the data set.
        entries: rows with a result.
        not_run: rows of the studies' tables without a result.
        sentences: what each trick did, a sentence each, as the studies say it.
    """

    dataset: str
    entries: tuple[Entry, ...]
    not_run: tuple[Entry, ...]
    sentences: tuple[str, ...]

    def paper(self, entry: Entry) -> float | None:
        """Return the paper's accuracy of a row, per cent, or None where it has no such row."""
        rows = [other.row for other in (*self.entries, *self.not_run)]
        return paper_accuracy(entry.row, rows, self.dataset)

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Titles of the rows that were not run, by the reason."""
        titles: dict[str, list[str]] = {}
        for entry in self.not_run:
            if entry.not_run:
                titles.setdefault(entry.not_run.reason, []).append(entry.row.title)
        return titles


def results_by_dataset(run: Run) -> list[DatasetResults]:
    """Return the results on every data set that the run's results or tables name."""
    columns = [
        (_stored_name(table, name), table, name) for table in run.tables for name in table.datasets
    ]
    found = []
    for dataset in dict.fromkeys([*run.datasets, *(stored for stored, _, _ in columns)]):
        entries = run.entries_of(dataset)
        done = {(entry.row.method_name, entry.row.backbone) for entry in entries}
        of_it = [(table, name) for stored, table, name in columns if stored == dataset]
        missing = {
            (entry.row.title, entry.not_run.reason): entry
            for table, name in of_it
            for entry in table.column(name)
            if entry.not_run and (entry.row.method_name, entry.row.backbone) not in done
        }
        sentences = dict.fromkeys(text for column in of_it for text in _sentences(*column))
        found.append(DatasetResults(dataset, entries, tuple(missing.values()), tuple(sentences)))
    return found


def _stored_name(table: Table, name: str) -> str:
    """Return a data set's name as results have it: "folder" is stored as "folder/<its name>"."""
    results = (result for entry in table.column(name) for result in entry.results)
    return next((result.dataset for result in results), name)


def _sentences(table: Table, dataset: str) -> Iterator[str]:
    for step in steps(table.rows):
        gain = table.differences(step)[dataset]
        if gain is not None:
            yield in_words(step, dataset, gain)


def read_run(folder: Path) -> Run:
    """Read all that `folder` holds of a run; files that cannot be used are listed, not fatal.

    Raises:
        RunError: there is no such folder, or neither a result nor a study's table in it.
    """
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}; expected the --output of a run")
    problems: list[str] = []
    files = (path for path in (folder / "cells").rglob("*.json") if path.name != CONFIG_FILE)
    read = [_read(path, Result.read, problems) for path in sorted(files)]
    results = {result.name: result for result in read if result is not None}

    def of_run(path: Path) -> Table | Result | None:
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.name == FINETUNED_FILE:
            return results.get(content["result"])
        return read_table(content, results) if "entries" in content else None

    parts = [_read(path, of_run, problems) for path in sorted(folder.glob("*.json"))]
    tables = [part for part in parts if isinstance(part, Table)]
    finetuning = next((part for part in parts if isinstance(part, Result)), None)
    if not results and not tables:
        found = "; ".join(problems) or f"{folder / 'cells'} holds none"
        raise RunError(
            f"{folder} has no finished cell and no table ({found}); expected the --output of "
            "run_all.py or finetune.py, with a run in it that has come to an end"
        )
    entries = [entry for table in tables for entry in table.entries.values()]
    last = [result for entry in entries for result in entry.results]
    last += [finetuning] if finetuning else []
    current, outdated = _of_current_photos(results.values(), last)
    return Run(folder, _rows(current), tuple(tables), finetuning, (*problems, *outdated))


def _read(path: Path, read: Callable[[Path], _T], problems: list[str]) -> _T | None:
    """Return what `read` makes of a file; None, and a problem more, where it cannot."""
    try:
        return read(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        named = str(path) in str(error)
        problems.append(f"{error}." if named else f"{path} could not be used: {error}.")
        return None


def _of_current_photos(
    results: Iterable[Result], last: Iterable[Result]
) -> tuple[list[Result], list[str]]:
    """Leave out results of photos that were changed since, and say so.

    The photos that count are those of the last finetuning and of the last study of each preset.
    """
    current: dict[str, set[str]] = {}
    for result in last:
        current.setdefault(result.dataset, set()).add(result.settings["photos"])
    kept, problems = [], []
    for result in results:
        digest = result.settings["photos"]
        if digest in current.get(result.dataset, {digest}):
            kept.append(result)
        else:
            problems.append(f"{result.path} is of photos that were changed or split anew since.")
    return kept, problems


def _rows(results: Iterable[Result]) -> tuple[Entry, ...]:
    """Return the rows that results make: those that differ by their seed alone are one."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        made_of = json.dumps({**result.settings, "seed": None}, sort_keys=True)
        groups.setdefault(made_of, []).append(result)
    methods = list(METHODS)
    ordered = sorted(
        groups.values(),
        key=lambda group: (group[0].dataset, methods.index(group[0].method), str(group[0].path)),
    )
    firsts = [group[0] for group in ordered]
    return tuple(
        Entry(_row(first, firsts), first.dataset, tuple(sorted(group, key=lambda r: r.seed or 0)))
        for first, group in zip(firsts, ordered, strict=True)
    )


def _row(result: Result, others: Iterable[Result]) -> Row:
    rivals = [
        flatten(other.settings)
        for other in others
        if (other.dataset, other.method) == (result.dataset, result.method)
    ]
    backbone = result.settings.get("backbone")
    title = METHODS[result.method].title
    if len(rivals) > 1:
        title += f" ({_what_differs(result, rivals)})"
    name = f"{result.method}@{backbone}" if backbone else result.method
    return Row(name, title, result.method, backbone)


def _what_differs(result: Result, rivals: Iterable[Mapping[str, Any]]) -> str:
    """Return the settings of `result` that the rows beside it do not all share, in words."""
    told = ", ".join(
        f"{name.rpartition('.')[2]} {value}"
        for name, value in flatten(result.settings).items()
        if name not in _UNTOLD and any(rival.get(name) != value for rival in rivals)
    )
    return told or result.path.stem.rpartition("-")[2]


def next_commands(result: Result, output: Path) -> list[str]:
    """Return the command lines that use a trained model; `output` is the run's folder."""
    model = model_folder(result.path)
    return [
        command_line("predict.py", model) + " PHOTOS...",
        command_line("export.py", model, "--output", output / "export"),
    ]
