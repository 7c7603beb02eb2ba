"""The table as plain values for JSON, with what does not fit on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.data.dataset import ProductDataset
from experiments.study.paper import counterpart
from experiments.study.rows import Row
from experiments.table.entry import Entry, Table
from experiments.table.ladder import Step, difference, in_words, steps
from experiments.table.markdown import paper_accuracy
from experiments.table.significance import class_accuracies


def to_json(
    table: Table,
    rows: Sequence[Row],
    datasets: Sequence[str],
    description: Mapping[str, Any],
    loaded: Mapping[str, ProductDataset],
) -> dict[str, Any]:
    """Return the table, the differences between its rows and their cost as plain values.

    Args:
        table: an entry for each of `rows` on each of `datasets`.
        rows: from the top.
        datasets: their names.
        description: of the study.
        loaded: the data sets that could be loaded, by their name in `datasets`.
    """
    return {
        "description": dict(description),
        "stored_as": {name: dataset.name for name, dataset in loaded.items()},
        "entries": [
            _entry(row, rows, name, table[row.name, name], loaded.get(name))
            for row in rows
            for name in datasets
        ],
        "differences": [
            value
            for step in steps(rows)
            for name in datasets
            if (value := _difference(step, name, table)) is not None
        ],
        "cost": [
            {
                "method": row.name,
                "dataset": name,
                "images_per_second": table[row.name, name].images_per_second,
                "peak_bytes": table[row.name, name].peak_bytes,
                "devices": sorted({run.device for run in table[row.name, name].runs if run.device}),
            }
            for row in rows
            if row.backbone is not None
            for name in datasets
        ],
    }


def _entry(
    row: Row, rows: Sequence[Row], dataset: str, entry: Entry, loaded: ProductDataset | None
) -> dict[str, Any]:
    done = bool(entry.runs)
    paper = counterpart(row, rows)
    return {
        "method": row.name,
        "title": row.title,
        "backbone": row.backbone,
        "dataset": dataset,
        "accuracies": list(entry.accuracies),
        "seeds": [run.seed for run in entry.runs],
        "mean_percent": entry.mean if done else None,
        "half_width_95_percent": entry.half_width if done else None,
        "wilson_95": [list(entry.wilson(index)) for index in range(len(entry.runs))],
        "class_accuracies": _by_class(entry, loaded) if done else None,
        "not_run": entry.not_run.reason if entry.not_run else None,
        "paper_row": paper.title if paper else None,
        "paper_percent": paper_accuracy(row, rows, dataset),
    }


def _by_class(entry: Entry, loaded: ProductDataset | None) -> dict[str, float | None]:
    labels = entry.runs[0].labels
    names = loaded.classes if loaded else [str(label) for label in range(int(labels.max()) + 1)]
    return dict(zip(names, class_accuracies(labels, entry.right(), len(names)), strict=True))


def _difference(step: Step, dataset: str, table: Table) -> dict[str, Any] | None:
    gain = difference(step, dataset, table)
    if gain is None:
        return None
    return {
        "method": step.after.name,
        "against": step.before.name,
        "trick": step.trick,
        "dataset": dataset,
        "difference_percent": 100 * gain.estimate,
        "interval_95_percent": [100 * gain.low, 100 * gain.high],
        "p_value": gain.p_value,
        "seed_p_values": list(gain.seed_p_values),
        "in_words": in_words(step, dataset, gain),
    }
