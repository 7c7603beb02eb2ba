"""The table as Markdown: a row a method, beside the paper's figures, and what each trick added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from experiments.data.catalog import CATALOG
from experiments.study.paper import counterpart
from experiments.study.rows import Row
from experiments.table.entry import Table
from experiments.table.ladder import difference, in_short, in_words, steps

_HOW_TO_READ = (
    "Test accuracy in %. Of n seeds: mean ± half the 95 % interval over seeds (Student's t); of "
    "one: the interval over test photos (Wilson)."
)
_HOW_DIFFERENCES_ARE_MADE = (
    "Differences in points with their 95 % interval and p-value, on the same test photos and "
    "seeds. Of one seed p is McNemar's exact test, and both speak of these networks; of several, "
    "seeds and photos both count. A difference is told from chance where p is below 0.05; "
    "p-values are not corrected for their number."
)
_HOW_COST_IS_MEASURED = (
    "Cost of training: median photos a second over the seeds, and the memory that tensors take at "
    "the peak of a step."
)


def to_markdown(
    table: Table,
    rows: Sequence[Row],
    datasets: Sequence[str],
    description: Mapping[str, str],
) -> str:
    """Return the table, what the tricks added, their cost, and what was not run and why.

    Args:
        table: an entry for each of `rows` on each of `datasets`.
        rows: from the top.
        datasets: keys of `experiments.data.catalog.CATALOG`.
        description: printed below, a line an item.
    """
    parts = [
        _HOW_TO_READ,
        _accuracies(table, rows, datasets),
        *_differences(table, rows, datasets),
        *_cost(table, rows, datasets),
        "\n".join(f"- {key}: {value}" for key, value in description.items()),
        _reasons(table, rows, datasets),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def paper_dataset(name: str) -> str | None:
    """Return the paper's name of a data set, or of the one whose part it plays; None for others."""
    return CATALOG[name].paper_dataset


def paper_accuracy(row: Row, rows: Sequence[Row], dataset: str) -> float | None:
    """Return the figure of Table I that stands beside `row` on `dataset`, per cent, or None."""
    paper, name = counterpart(row, rows), paper_dataset(dataset)
    return paper.accuracies[name] if paper and name else None


def _accuracies(table: Table, rows: Sequence[Row], datasets: Sequence[str]) -> str:
    header = ["method"]
    for name in datasets:
        papers = paper_dataset(name)
        header += [name] + ([f"paper, {papers}"] if papers else [])
    numbers = _numbered_reasons(table, rows, datasets)
    lines = [_line(row, rows, table, datasets, numbers) for row in rows]
    return _markdown(header, lines)


def _line(
    row: Row,
    rows: Sequence[Row],
    table: Table,
    datasets: Sequence[str],
    numbers: Mapping[str, int],
) -> list[str]:
    paper = counterpart(row, rows)
    beside = paper is not None and any(map(paper_dataset, datasets))
    cells = [f"{row.title} (paper: {paper.title})" if paper and beside else row.title]
    for name in datasets:
        entry = table[row.name, name]
        why = f" [{numbers[entry.not_run.reason]}]" if entry.not_run else ""
        cells.append(f"{entry}{why}")
        if paper_dataset(name):
            accuracy = paper_accuracy(row, rows, name)
            cells.append("-" if accuracy is None else f"{accuracy:g}")
    return cells


def _differences(table: Table, rows: Sequence[Row], datasets: Sequence[str]) -> list[str]:
    lines, sentences = [], []
    for step in steps(rows):
        gains = {name: difference(step, name, table) for name in datasets}
        if any(gains.values()):
            lines.append([step.title, *map(in_short, gains.values())])
        sentences += [f"- {in_words(step, name, gain)}" for name, gain in gains.items() if gain]
    if not lines:
        return []
    return [
        _HOW_DIFFERENCES_ARE_MADE,
        _markdown(["difference", *datasets], lines),
        "\n".join(sentences),
    ]


def _cost(table: Table, rows: Sequence[Row], datasets: Sequence[str]) -> list[str]:
    lines = []
    for row in rows:
        entries = [table[row.name, name] for name in datasets]
        if row.backbone is None or not any(entry.runs for entry in entries):
            continue
        rates = [entry.images_per_second for entry in entries]
        shown = [f"{rate:.3g}" if rate else "not measured" for rate in rates]
        peak = max((entry.peak_bytes or 0 for entry in entries), default=0)
        lines.append([row.title, *shown, f"{peak / 2**20:,.0f} MiB" if peak else "not measured"])
    if not lines:
        return []
    header = ["method", *(f"photos/s, {name}" for name in datasets), "peak memory"]
    return [_HOW_COST_IS_MEASURED, _markdown(header, lines), _devices(table, rows, datasets)]


def _devices(table: Table, rows: Sequence[Row], datasets: Sequence[str]) -> str:
    """Return what the networks were trained on; stored results may come from several machines."""
    trained: dict[str, list[str]] = {}
    for row in rows:
        runs = [run for name in datasets for run in table[row.name, name].runs if row.backbone]
        for device in dict.fromkeys(run.device for run in runs if run.device):
            trained.setdefault(device, []).append(row.title)
    if len(trained) < 2:
        return "".join(f"Trained on {device}." for device in trained)
    places = "; ".join(f"{device}: {', '.join(titles)}" for device, titles in trained.items())
    return f"Trained on several devices, whose figures do not compare. {places}."


def _reasons(table: Table, rows: Sequence[Row], datasets: Sequence[str]) -> str:
    numbers = _numbered_reasons(table, rows, datasets)
    places: dict[str, list[str]] = {reason: [] for reason in numbers}
    for name in datasets:
        missing = {row.name: table[row.name, name].not_run for row in rows}
        reasons = [not_run.reason for not_run in missing.values() if not_run]
        for reason in dict.fromkeys(reasons):
            of = [row for row, not_run in missing.items() if not_run and not_run.reason == reason]
            who = "all rows" if len(of) == len(rows) > 1 else ", ".join(of)
            places[reason].append(f"{who} on {name}")
    lines = [
        f"- [{number}] {', '.join(places[reason])}: {reason}" for reason, number in numbers.items()
    ]
    return "\n".join(["Not run:", *lines]) if lines else ""


def _numbered_reasons(table: Table, rows: Sequence[Row], datasets: Sequence[str]) -> dict[str, int]:
    """Return each reason why something was not run, in the order of the data sets, from 1."""
    entries = [table[row.name, name] for name in datasets for row in rows]
    reasons = dict.fromkeys(entry.not_run.reason for entry in entries if entry.not_run)
    return {reason: number for number, reason in enumerate(reasons, start=1)}


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return tabulate(lines, headers=header, tablefmt="github", disable_numparse=True)
