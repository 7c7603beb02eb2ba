"""The table as Markdown for people and as JSON for programs: accuracies, differences, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from experiments.data.catalog import load_dataset
from experiments.data.dataset import DataError
from experiments.data.source import DataOptions
from experiments.matching.superpoint_weights import HOW_TO_GIVE_WEIGHTS
from experiments.methods import (
    PAPER_BACKBONE,
    PAPER_DATASETS,
    PAPER_ROWS,
    Row,
    counterpart,
    paper_accuracy,
    paper_dataset,
    parse_rows,
)
from experiments.networks.backbones import weights_source
from experiments.results import Entry, NotRun, Result, Step, Table, steps
from experiments.significance import Difference, class_accuracies

_PAPERS_COMMAND = "python experiments/run_all.py paper --data-root DIR"
_SIGNIFICANT = 0.05  # p-values below it are told as a difference

_HOW_TO_READ = (
    "Test accuracy in %. Of n seeds: mean ± half the 95 % interval over seeds (Student's t); of "
    "one, or where seeds change no answer: the interval over test photos (Wilson)."
)
_HOW_DIFFERENCES_ARE_MADE = (
    "Differences in points with their 95 % interval and p-value, on the same test photos and "
    "seeds. Of one seed p is McNemar's exact test, and both speak of these networks; of several, "
    "seeds and photos both count. A difference is told from chance where p is below 0.05; "
    "p-values are not corrected for their number."
)
_HOW_COST_IS_MEASURED = (
    "Cost of training: median photos per second over the seeds, and the memory that tensors take "
    "at the peak, on GPUs."
)


def to_markdown(table: Table) -> str:
    """Return the table, what the tricks added, their cost, and what was not run and why."""
    parts = [
        _HOW_TO_READ,
        _accuracies(table),
        *_differences(table),
        *_cost(table),
        "\n".join(f"- {key}: {value}" for key, value in table.description.items()),
        _reasons(table),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_json(table: Table) -> dict[str, Any]:
    """Return the table, the differences between its rows and their cost as plain values."""
    entries = [entry for row in table.rows for entry in table.row(row)]
    return {
        "description": dict(table.description),
        "entries": [_entry_json(entry, table) for entry in entries],
        "differences": [
            _difference_json(step, name, gain)
            for step in steps(table.rows)
            for name, gain in table.differences(step).items()
            if gain is not None
        ],
        "cost": [
            {
                "method": entry.row.name,
                "dataset": entry.dataset,
                "images_per_second": entry.images_per_second,
                "peak_bytes": entry.peak_bytes,
                "devices": sorted(entry.devices),
            }
            for entry in entries
            if entry.row.backbone is not None
        ],
    }


def read_table(stored: Mapping[str, Any], results: Mapping[str, Result]) -> Table:
    """Return the table that `to_json` made, its figures to be computed from its results again.

    Args:
        stored: the plain values that `to_json` returned.
        results: the results there are, by `Result.name`.

    Raises:
        KeyError, TypeError: `stored` is something else.
    """
    rows, entries = {}, {}
    for entry in stored["entries"]:
        name, dataset = entry["method"], entry["dataset"]
        row = rows[name] = Row(name, entry["title"], name.partition("@")[0], entry["backbone"])
        done = tuple(results[cell] for cell in entry["cells"] if cell in results)
        not_run = NotRun("", entry["not_run"]) if entry["not_run"] else None
        entries[name, dataset] = Entry(row, dataset, done, not_run)
    datasets = dict.fromkeys(dataset for _, dataset in entries)
    return Table(tuple(rows.values()), tuple(datasets), stored["description"], entries)


def paper_table() -> str:
    """Return the paper's Table I as Markdown; nothing is computed, fetched or looked for."""
    rows = parse_rows(PAPER_ROWS, PAPER_BACKBONE)
    not_run = {name: _not_part_of_this_run(name) for name in PAPER_DATASETS.values()}
    table = Table.empty(rows, tuple(not_run), weights_sources(rows), not_run)
    heading = f"The paper's own data sets and backbones, not part of this run: `{_PAPERS_COMMAND}`"
    return f"{heading}\n\n{to_markdown(table)}"


def weights_sources(rows: Sequence[Row]) -> dict[str, str]:
    """Return where the weights of the rows' networks come from when no file is given."""
    names = dict.fromkeys(row.backbone for row in rows if row.backbone)
    sources = {f"weights of {name}": weights_source(name) for name in names}
    if any(row.method.detector == "superpoint" for row in rows):
        sources["weights of superpoint"] = HOW_TO_GIVE_WEIGHTS
    return sources


def in_words(step: Step, dataset: str, gain: Difference) -> str:
    """Return the sentence that says whether the trick helped, with its interval and p-value.

    The p-value decides. Of one seed it comes from an exact test and the interval does not, so that
    the interval may leave 0 out where p is above 0.05.
    """
    if gain.p_value >= _SIGNIFICANT:
        verdict = "made no difference that can be told from chance"
    else:
        verdict = "helped" if gain.estimate > 0 else "hurt"
    trick = step.trick[0].upper() + step.trick[1:]
    runs = f"{gain.seeds} seeds" if gain.seeds > 1 else "one seed, so of these networks"
    return (
        f"{trick} {verdict} on {dataset}: {100 * gain.estimate:+.1f} points against "
        f"{step.before.title} (95 % interval {_interval(gain)}, {_p_value(gain)}, {runs})."
    )


def in_short(gain: Difference | None) -> str:
    """Return a difference as it stands in a table, in per cent points."""
    if gain is None:
        return "not run"
    return f"{100 * gain.estimate:+.1f} ({_interval(gain)}; {_p_value(gain)})"


def _interval(gain: Difference) -> str:
    return f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"


def _p_value(gain: Difference) -> str:
    return "p < 0.001" if gain.p_value < 0.001 else f"p = {gain.p_value:.2g}"


def _not_part_of_this_run(dataset: str) -> NotRun:
    try:
        load_dataset(dataset, DataOptions(root=None, cache=Path(), image_size=224))
    except DataError as error:
        return NotRun("no photos", str(error))
    return NotRun("not asked for", f"`{_PAPERS_COMMAND}` runs it")


def _accuracies(table: Table) -> str:
    header = ["method"]
    for name in table.datasets:
        papers = paper_dataset(name)
        header += [name] + ([f"paper, {papers}"] if papers else [])
    numbers = _numbered_reasons(table)
    return _markdown(header, [_line(row, table, numbers) for row in table.rows])


def _line(row: Row, table: Table, numbers: Mapping[str, int]) -> list[str]:
    paper = counterpart(row, table.rows)
    beside = paper is not None and any(map(paper_dataset, table.datasets))
    cells = [f"{row.title} (paper: {paper.title})" if paper and beside else row.title]
    for entry in table.row(row):
        why = f" [{numbers[entry.not_run.reason]}]" if entry.not_run else ""
        cells.append(f"{entry}{why}")
        if paper_dataset(entry.dataset):
            accuracy = paper_accuracy(row, table.rows, entry.dataset)
            cells.append("-" if accuracy is None else f"{accuracy:g}")
    return cells


def _differences(table: Table) -> list[str]:
    lines, sentences = [], []
    for step in steps(table.rows):
        gains = table.differences(step)
        if any(gains.values()):
            title = f"{step.after.title} against {step.before.title}"
            lines.append([title, *map(in_short, gains.values())])
        sentences += [f"- {in_words(step, name, gain)}" for name, gain in gains.items() if gain]
    if not lines:
        return []
    return [
        _HOW_DIFFERENCES_ARE_MADE,
        _markdown(["difference", *table.datasets], lines),
        "\n".join(sentences),
    ]


def _cost(table: Table) -> list[str]:
    lines = []
    for row in table.rows:
        entries = table.row(row)
        if row.backbone is None or not any(entry.results for entry in entries):
            continue
        rates = [entry.images_per_second for entry in entries]
        shown = [f"{rate:.3g}" if rate else "not measured" for rate in rates]
        peak = max(entry.peak_bytes or 0 for entry in entries)
        lines.append([row.title, *shown, f"{peak / 2**20:,.0f} MiB" if peak else "not measured"])
    if not lines:
        return []
    header = ["method", *(f"photos/s, {name}" for name in table.datasets), "peak memory"]
    return [_HOW_COST_IS_MEASURED, _markdown(header, lines), _devices(table)]


def _devices(table: Table) -> str:
    """Return what the networks were trained on; stored results may come from several machines."""
    trained: dict[str, dict[str, None]] = {}
    for row in table.rows:
        for device in (device for entry in table.row(row) for device in entry.devices):
            if row.backbone:
                trained.setdefault(device, {})[row.title] = None
    if len(trained) < 2:
        return "".join(f"Trained on {device}." for device in trained)
    places = "; ".join(f"{device}: {', '.join(titles)}" for device, titles in trained.items())
    return f"Trained on several devices, whose figures do not compare. {places}."


def _reasons(table: Table) -> str:
    numbers = _numbered_reasons(table)
    places: dict[str, list[str]] = {reason: [] for reason in numbers}
    for name in table.datasets:
        rows: dict[str, list[str]] = {}
        for entry in table.column(name):
            if entry.not_run:
                rows.setdefault(entry.not_run.reason, []).append(entry.row.name)
        for reason, names in rows.items():
            who = "all rows" if len(names) == len(table.rows) > 1 else ", ".join(names)
            places[reason].append(f"{who} on {name}")
    lines = [
        f"- [{number}] {', '.join(places[reason])}: {reason}" for reason, number in numbers.items()
    ]
    return "\n".join(["Not run:", *lines]) if lines else ""


def _numbered_reasons(table: Table) -> dict[str, int]:
    """Return each reason why something was not run, in the order of the data sets, from 1."""
    entries = [entry for name in table.datasets for entry in table.column(name)]
    reasons = dict.fromkeys(entry.not_run.reason for entry in entries if entry.not_run)
    return {reason: number for number, reason in enumerate(reasons, start=1)}


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return tabulate(lines, headers=header, tablefmt="github", disable_numparse=True)


def _entry_json(entry: Entry, table: Table) -> dict[str, Any]:
    row, done = entry.row, bool(entry.results)
    paper = counterpart(row, table.rows)
    return {
        "method": row.name,
        "title": row.title,
        "backbone": row.backbone,
        "dataset": entry.dataset,
        "cells": [result.name for result in entry.results],
        "accuracies": list(entry.accuracies),
        "seeds": [result.seed for result in entry.results],
        "mean_percent": entry.mean if done else None,
        "half_width_95_percent": entry.half_width if done else None,
        "wilson_95": [list(result.interval) for result in entry.results],
        "class_accuracies": _by_class(entry) if done else None,
        "not_run": entry.not_run.reason if entry.not_run else None,
        "paper_row": paper.title if paper else None,
        "paper_percent": paper_accuracy(row, table.rows, entry.dataset),
    }


def _by_class(entry: Entry) -> dict[str, float | None]:
    labels, names = np.asarray(entry.results[0].labels), entry.results[0].classes
    return dict(zip(names, class_accuracies(labels, entry.right, len(names)), strict=True))


def _difference_json(step: Step, dataset: str, gain: Difference) -> dict[str, Any]:
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
