"""What a run left on disk: finished cells, grouped into rows, and the facts of a finetuning."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.command_lines import flatten
from experiments.study.methods import METHODS
from experiments.table.significance import student_half_width, wilson_interval
from experiments.training.recipe import Recipe
from lca_fused.pretrained import CONFIG_FILE

REPORT_FILE = "report.html"
"""Where the report goes, unless it is told another place."""

FACTS_FILE = "finetune.json"
"""Where finetune.py stores what the report says about a run on one's own photos."""

_UNTOLD = frozenset({"seed", "photos", "weights"})  # fingerprints tell a reader nothing


class RunError(ValueError):
    """There is nothing in the folder that a report could be made from."""


@dataclass(frozen=True)
class StoredCell:
    """A finished cell, as `experiments.study.cells.run_cell` stored it.

    Attributes:
        path: the JSON file.
        dataset: name of the data set and its protocol.
        method: key of `experiments.study.methods.METHODS`.
        seed: of the training; None for keypoint matching.
        labels: class index of each test photo.
        predicted: the class index each was taken for.
        settings: everything the result depends on.
        result: all that is stored, with what older runs did not store yet left out.
    """

    path: Path
    dataset: str
    method: str
    seed: int | None
    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    settings: Mapping[str, Any]
    result: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> StoredCell:
        """Read a cell; raises ValueError for a file that holds none, OSError if it cannot be."""
        result = json.loads(path.read_text(encoding="utf-8"))
        try:
            settings = result["settings"]
            cell = cls(
                path=path,
                dataset=settings["dataset"],
                method=settings["method"],
                seed=settings.get("seed"),
                labels=tuple(result["labels"]),
                predicted=tuple(top[0] for top in result["top5"]),
                settings=settings,
                result=result,
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"no finished cell ({type(error).__name__}: {error})") from error
        if not cell.labels or len(cell.labels) != len(cell.predicted):
            raise ValueError(
                f"it has {len(cell.labels)} labels and {len(cell.predicted)} predictions; expected "
                "as many of each, and at least one"
            )
        return cell

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, or None where an older run did not store them."""
        names = self.result.get("classes")
        return tuple(names) if names else None

    @property
    def images(self) -> tuple[str, ...] | None:
        """Paths of the test photos below the data set's folder; None where not stored."""
        images = self.result.get("images")
        return tuple(images) if images else None

    @property
    def contents(self) -> tuple[str, ...] | None:
        """The `content_digest` of every test photo; None where not stored."""
        contents = self.result.get("contents")
        return tuple(contents) if contents else None

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """One entry an epoch; empty for keypoint matching."""
        return self.result.get("history") or ()

    @property
    def best_epoch(self) -> int | None:
        """The epoch that was kept, from 1."""
        return self.result.get("best_epoch")

    @property
    def right(self) -> int:
        """How many test photos are recognised."""
        return sum(p == y for p, y in zip(self.predicted, self.labels, strict=True))

    @property
    def accuracy(self) -> float:
        """Share of test photos that are recognised, 0..1.

        Not what is stored by that name: earlier versions counted argmax there, which tied.
        """
        return self.right / len(self.labels)

    @property
    def model(self) -> Path | None:
        """The trained classifier's folder, or None where there is none (any more)."""
        path = self.path.with_suffix(".model")
        return path if path.is_dir() else None

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number where names were not stored."""
        names = self.classes
        return names[label] if names and 0 <= label < len(names) else f"class {label}"


@dataclass(frozen=True)
class Row:
    """The seeds of one method on one data set.

    Attributes:
        cells: one a seed, by rising seed; at least one.
        title: how it is printed.
    """

    cells: tuple[StoredCell, ...]
    title: str

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.cells[0].dataset

    @property
    def method(self) -> str:
        """Key of `METHODS`."""
        return self.cells[0].method

    @property
    def names(self) -> tuple[str, str]:
        """What a study's table may call the row: METHOD@BACKBONE, or METHOD."""
        return f"{self.method}@{self.cells[0].settings.get('backbone')}", self.method

    @property
    def peak_bytes(self) -> int | None:
        """The highest peak memory of a training step that a seed measured, or None."""
        measured = (cell.result.get("peak_bytes") for cell in self.cells)
        return max((peak for peak in measured if peak), default=None)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Test accuracy of each seed, per cent."""
        return tuple(100 * cell.accuracy for cell in self.cells)

    @property
    def mean(self) -> float:
        """Mean test accuracy, per cent."""
        return statistics.fmean(self.accuracies)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean, per cent.

        Student's t over seeds; with one seed Wilson's, over its test photos.
        """
        half = student_half_width(self.accuracies)
        if half is not None:
            return max(self.mean - half, 0.0), min(self.mean + half, 100.0)
        cell = self.cells[0]
        low, high = wilson_interval(cell.right, len(cell.labels))
        return 100 * low, 100 * high


@dataclass(frozen=True)
class StoredRun:
    """All that a report is made from.

    Attributes:
        folder: the run's.
        rows: by data set, then in the order of `METHODS`.
        tables: the studies' REPORT.json, parsed.
        facts: what finetune.py stored, or None.
        problems: files that could not be used, and why; one sentence each.
    """

    folder: Path
    rows: tuple[Row, ...]
    tables: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = ()

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets with a finished cell."""
        return tuple(dict.fromkeys(row.dataset for row in self.rows))

    def rows_of(self, dataset: str) -> tuple[Row, ...]:
        """Return the rows of one data set."""
        return tuple(row for row in self.rows if row.dataset == dataset)


def read_run(folder: Path) -> StoredRun:
    """Read all that `folder` holds of a run; files that cannot be used are listed, not fatal.

    Raises:
        RunError: there is no such folder, or neither a finished cell nor a study's table in it.
    """
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}; expected the --output of a run")
    files = sorted((folder / "cells").rglob("*.json"))
    cells, problems = _read_cells(path for path in files if path.name != CONFIG_FILE)
    tables, facts = [], None
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            problems.append(f"{path} could not be read: {error}.")
            continue
        if path.name == FACTS_FILE:
            facts = content
        elif isinstance(content, dict) and "entries" in content:
            tables.append(content)
    if not cells and not tables:
        found = "; ".join(problems) or f"{folder / 'cells'} holds none"
        raise RunError(
            f"{folder} has no finished cell and no table ({found}); expected the --output of "
            "run_all.py or finetune.py, with a run in it that has come to an end"
        )
    cells, outdated = _of_current_photos(cells, tables, facts)
    problems += outdated
    return StoredRun(folder, _rows(cells), tuple(tables), facts, tuple(problems))


def _of_current_photos(
    cells: Sequence[StoredCell],
    tables: Iterable[Mapping[str, Any]],
    facts: Mapping[str, Any] | None,
) -> tuple[list[StoredCell], list[str]]:
    """Leave out results of photos that were changed since, and say so.

    The photos that count are those of the last finetuning and of the last study of each preset.
    """
    current: dict[str, set[str]] = {}
    for said in [*tables, *([facts] if facts else [])]:
        for dataset, digest in said.get("photos_used", {}).items():
            current.setdefault(dataset, set()).add(digest)
    kept, problems = [], []
    for cell in cells:
        digest = cell.settings.get("photos")
        if digest in current.get(cell.dataset, {digest}):
            kept.append(cell)
        else:
            problems.append(f"{cell.path} is of photos that were changed or split anew since.")
    return kept, problems


def _read_cells(paths: Iterable[Path]) -> tuple[list[StoredCell], list[str]]:
    results = [_read_cell(path) for path in paths]
    cells = [result for result in results if isinstance(result, StoredCell)]
    return cells, [result for result in results if isinstance(result, str)]


def _read_cell(path: Path) -> StoredCell | str:
    """Return the cell, or why there is none."""
    try:
        return StoredCell.read(path)
    except (OSError, ValueError) as error:
        return f"{path} could not be used: {error}."


def _rows(cells: Iterable[StoredCell]) -> tuple[Row, ...]:
    groups: dict[str, list[StoredCell]] = {}
    for cell in cells:
        settings = _full(cell.settings) | {"seed": None}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(cell)
    order = list(METHODS)
    ordered = sorted(
        groups.values(),
        key=lambda group: (
            group[0].dataset,
            order.index(group[0].method) if group[0].method in order else len(order),
            str(group[0].path),
        ),
    )
    return tuple(_row(group, ordered) for group in ordered)


def _row(group: list[StoredCell], groups: Iterable[list[StoredCell]]) -> Row:
    first = group[0]
    rivals = [
        other[0].settings
        for other in groups
        if (other[0].dataset, other[0].method) == (first.dataset, first.method)
    ]
    title = METHODS[first.method].title if first.method in METHODS else first.method
    if len(rivals) > 1:
        title += f" ({_what_differs(first, rivals)})"
    return Row(tuple(sorted(group, key=lambda cell: cell.seed or 0)), title)


def _what_differs(cell: StoredCell, rivals: Iterable[Mapping[str, Any]]) -> str:
    """Return the settings of `cell` that the rows beside it do not all share, in words."""
    others = [_full(rival) for rival in rivals]
    different = {
        name.rpartition(".")[2]: value
        for name, value in _full(cell.settings).items()
        if name not in _UNTOLD and any(other.get(name) != value for other in others)
    }
    told = ", ".join(f"{name} {value}" for name, value in different.items())
    return told or cell.path.stem.rpartition("-")[2]


def _full(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as one level, with the defaults of what older recipes did not have."""
    flat = flatten(settings)
    if "recipe" in settings:
        flat = json.loads(json.dumps(flatten({"recipe": asdict(Recipe())}))) | flat
    return flat
