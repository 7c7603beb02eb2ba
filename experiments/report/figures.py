"""The report's charts: each an SVG that follows the page into dark mode and prints in light."""

from __future__ import annotations

import base64
import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.report.stored import Row, StoredCell

# Okabe and Ito's colours for any colour vision, without yellow, which white paper swallows.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":")
_PAPER_MARKER = "D"

_INK, _DARK_INK = "#1d2329", "#e3e7eb"
_SOFT_INK, _DARK_SOFT_INK = "#8a939c", "#7d8790"
# A page cannot style the insides of an image, but the image sees whether the reader prefers dark.
_DARK_MODE = f"""<style>@media (prefers-color-scheme: dark) {{
[style*="fill: {_INK}"] {{ fill: {_DARK_INK} !important }}
[style*="stroke: {_INK}"] {{ stroke: {_DARK_INK} !important }}
[style*="stroke: {_SOFT_INK}"] {{ stroke: {_DARK_SOFT_INK} !important }}
}}</style>"""
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: class names of any script, and a small file
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.size": 10.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _SOFT_INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _SOFT_INK,
    "grid.alpha": 0.25,
    "xtick.color": _SOFT_INK,
    "xtick.labelcolor": _INK,
    "ytick.color": _SOFT_INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Chart:
    """A chart for an <img>.

    Attributes:
        uri: data URI of an SVG.
        alt: what it shows, for those who do not see it.
        width: pixels it is drawn for; shown at most as wide.
    """

    uri: str
    alt: str
    width: int


def ladder_chart(rows: Sequence[Row], paper: Sequence[float | None]) -> Chart:
    """Draw the test accuracy of each row with its 95 % interval, and the paper's.

    Args:
        rows: from the bottom of the ladder, shown at the top, upwards.
        paper: per cent, or None where the paper has no such row.
    """
    with _style():
        figure = Figure(figsize=(5.6, 0.9 + 0.45 * len(rows)), layout="constrained")
        ax = figure.add_subplot()
        for place, row in enumerate(rows):
            _draw_row(ax, place, row)
        beside = [(value, place) for place, value in enumerate(paper) if value is not None]
        if beside:
            values, places = zip(*beside, strict=True)
            ax.plot(values, places, _PAPER_MARKER, ms=6, mfc="none", mec=_INK, ls="", label="paper")
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12 - 0.6 / len(rows)))
        ax.set_yticks(range(len(rows)), [textwrap.fill(row.title, 24) for row in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlabel("test accuracy, %")
        ax.grid(visible=False, axis="y")
        described = map(_in_words, rows, paper)
        return _chart(figure, f"Test accuracy: {'; '.join(described)}.")


def _draw_row(ax: Axes, place: int, row: Row) -> None:
    low, high = row.interval
    colour = _COLOURS[place % len(_COLOURS)]
    ax.hlines(place, low, high, color=colour, lw=3, alpha=0.55)
    if len(row.cells) > 1:
        ax.plot(row.accuracies, [place] * len(row.cells), "|", color=colour, ms=9)
    filled = colour if len(row.cells) > 1 else "none"
    ax.plot([row.mean], [place], "o", ms=7, mfc=filled, mec=colour, mew=1.8)


def _in_words(row: Row, paper: float | None) -> str:
    low, high = row.interval
    beside = "" if paper is None else f", paper {paper:.1f} %"
    return f"{row.title} {row.mean:.1f} % ({low:.1f} to {high:.1f}){beside}"


def learning_curves(rows: Sequence[Row]) -> list[Chart]:
    """Draw the loss, and the validation accuracy, of each epoch; nothing where none trained.

    Every seed has its line, every row its colour and dashes. There is no chart of the accuracy
    where no photos were held out for validation.
    """
    trained = [row for row in rows if any(cell.history for cell in row.cells)]
    charts = []
    if trained:
        charts.append(_curves(trained, _draw_losses, "Loss", "loss, nats"))
    if any(_series(cell, "validation_accuracy")[0] for row in trained for cell in row.cells):
        charts.append(
            _curves(trained, _draw_accuracy, "Validation accuracy", "validation accuracy, %")
        )
    return charts


def _curves(
    rows: Sequence[Row], draw: Callable[[Axes, StoredCell, int], None], what: str, label: str
) -> Chart:
    with _style():
        figure = Figure(figsize=(4.5, 3.3 + 0.2 * len(rows)), layout="constrained")
        ax = figure.add_subplot(xlabel="epoch", ylabel=label)
        for place, row in enumerate(rows):
            for cell in row.cells:
                draw(ax, cell, place)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _add_legend(figure, ax, rows, losses=draw is _draw_losses)
        return _chart(figure, f"{what} of each epoch. " + " ".join(map(_epochs_in_words, rows)))


def _draw_losses(ax: Axes, cell: StoredCell, place: int) -> None:
    colour = _COLOURS[place % len(_COLOURS)]
    epochs, train = _series(cell, "train_loss")
    ax.plot(epochs, train, color=colour, lw=1.4, ls=_DASHES[place % len(_DASHES)])
    epochs, validation = _series(cell, "validation_loss")
    ax.plot(epochs, validation, color=colour, lw=1, marker=".", ms=4, alpha=0.7)


def _draw_accuracy(ax: Axes, cell: StoredCell, place: int) -> None:
    colour = _COLOURS[place % len(_COLOURS)]
    epochs, accuracy = _series(cell, "validation_accuracy")
    percent = [100 * value for value in accuracy]
    ax.plot(epochs, percent, color=colour, lw=1.4, ls=_DASHES[place % len(_DASHES)])
    if cell.best_epoch in epochs:
        best = epochs.index(cell.best_epoch)
        ax.plot(epochs[best], percent[best], "o", ms=6, mfc="none", mec=colour, mew=1.5)


def _series(cell: StoredCell, name: str) -> tuple[list[float], list[float]]:
    points = [(record["epoch"], record[name]) for record in cell.history if name in record]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _add_legend(figure: Figure, ax: Axes, rows: Sequence[Row], *, losses: bool) -> None:
    titles = [row.title for row in rows] if len(rows) > 1 or not losses else ["training"]
    handles = [
        ax.plot([], [], color=_COLOURS[place % len(_COLOURS)], ls=_DASHES[place % len(_DASHES)])[0]
        for place in range(len(rows))
    ]
    if losses:
        titles.append("validation loss")
        handles += ax.plot([], [], color=_SOFT_INK, lw=1, marker=".", ms=4)
    else:
        titles.append("epoch kept")
        handles += ax.plot([], [], "o", mfc="none", mec=_SOFT_INK, mew=1.5)
    figure.legend(handles, [textwrap.fill(title, 40) for title in titles], loc="outside lower left")


def _epochs_in_words(row: Row) -> str:
    kept = [
        f"epoch {cell.best_epoch} of {len(cell.history)} kept, validation accuracy "
        f"{100 * accuracy[-1]:.1f} % in the last"
        if (accuracy := _series(cell, "validation_accuracy")[1])
        else f"{len(cell.history)} epochs"
        for cell in row.cells
    ]
    return f"{row.title}: {'; '.join(kept)}."


def _style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(_STYLE)


def _chart(figure: Figure, alt: str) -> Chart:
    file = io.StringIO()
    with warnings.catch_warnings():
        # The reader's own fonts draw the text; that matplotlib's lacks a letter does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    head, separator, body = file.getvalue().partition("<defs>")
    svg = head + _DARK_MODE + separator + body
    uri = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    return Chart(uri, alt, width=round(figure.get_figwidth() * 96))
