"""The ladder as a picture: accuracy with its interval, a panel a data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.data.own_output import PICTURE_METADATA
from experiments.storage import write_atomically
from experiments.study.rows import Row
from experiments.table.entry import Table
from experiments.table.markdown import paper_accuracy, paper_dataset

# Told apart by colour-blind readers, and by their shapes.
_OURS, _PAPERS, _QUIET = "#0072b2", "#d55e00", "#767676"


def save_ladder(table: Table, rows: Sequence[Row], datasets: Sequence[str], path: Path) -> None:
    """Write the chart to `path` as PNG; nothing where the table holds no result.

    Args:
        table: an entry for each of `rows` on each of `datasets`.
        rows: from the top.
        datasets: a panel each; those without a result are left out.
        path: of the picture.
    """
    shown = [name for name in datasets if any(table[row.name, name].runs for row in rows)]
    if not shown:
        return
    figure = Figure(figsize=(2.6 + 2.9 * len(shown), 1.5 + 0.36 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, shown, strict=True):
        _draw(axes, table, rows, name)
    panels[0].set_yticks(range(len(rows)), [row.title for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower right", ncols=2, frameon=False)
    save = partial(figure.savefig, format="png", dpi=150, metadata=PICTURE_METADATA)
    write_atomically(path, save)


def _draw(axes: Axes, table: Table, rows: Sequence[Row], dataset: str) -> None:
    done = [(place, table[row.name, dataset]) for place, row in enumerate(rows)]
    done = [(place, entry) for place, entry in done if entry.runs]
    means = [entry.mean for _, entry in done]
    reach = [
        [mean - entry.interval[0] for mean, (_, entry) in zip(means, done, strict=True)],
        [entry.interval[1] - mean for mean, (_, entry) in zip(means, done, strict=True)],
    ]
    places = [place for place, _ in done]
    axes.errorbar(
        means, places, xerr=reach, fmt="o", color=_OURS, capsize=3, label="here, 95 % interval"
    )
    figures = [(paper_accuracy(row, rows, dataset), place) for place, row in enumerate(rows)]
    figures = [(accuracy, place) for accuracy, place in figures if accuracy is not None]
    if figures:
        axes.plot(
            *zip(*figures, strict=True), "D", color=_PAPERS, fillstyle="none", label="the paper"
        )
    for place in set(range(len(rows))) - set(places):
        axes.annotate(
            "not run",
            (0.02, place),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, 4),  # above the row: the paper's figure may stand in it
            textcoords="offset points",
            color=_QUIET,
            fontsize="small",
        )
    papers = paper_dataset(dataset)
    axes.set_title(f"{dataset}\n(paper: {papers})" if papers else dataset, fontsize="medium")
    axes.set_xlabel("test accuracy, %")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
