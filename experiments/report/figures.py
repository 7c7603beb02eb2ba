"""The report's pictures: charts, SVG that follows the page into dark mode, and small photos."""

from __future__ import annotations

import base64
import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from experiments.calibration import Bin, expected_calibration_error
from experiments.data.own_output import PICTURE_METADATA
from experiments.methods import paper_accuracy, paper_dataset
from experiments.results import Entry, Result, Table
from experiments.significance import wilson_interval
from experiments.storage import write_atomically
from lca_fused.photos.reading import ImageError, read_image

WEBP_QUALITY = 80
"""Of all photos; 100 is the best."""

_SIDE = 150  # px; photos are shown at most as large

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
        alt: what the picture shows, for those who do not see it.
        width: width in pixels that the picture is drawn for; it is shown at most as wide.
    """

    uri: str
    alt: str
    width: int


def ladder_chart(column: Sequence[Entry], paper: Sequence[float | None]) -> Chart:
    """Draw the test accuracy of each row with its 95 % interval, and the paper's.

    Args:
        column: the rows on one data set, each with a result; the first is shown at the top.
        paper: the paper's accuracy in per cent, or None where the paper has no such row.
    """
    with _style():
        figure = Figure(figsize=(5.6, 0.9 + 0.45 * len(column)), layout="constrained")
        ax = figure.add_subplot()
        draw_ladder(ax, column, paper)
        if any(paper):
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12 - 0.6 / len(column)))
        described = map(_in_words, column, paper)
        return _chart(figure, f"Test accuracy: {'; '.join(described)}.")


def save_ladder(table: Table, path: Path) -> None:
    """Write the ladder of each data set with a result to `path`, a PNG; nothing without any."""
    columns = {name: table.column(name) for name in table.datasets}
    shown = {name: column for name, column in columns.items() if any(e.results for e in column)}
    if not shown:
        return
    with _style():
        size = 2.6 + 2.9 * len(shown), 1.5 + 0.36 * len(table.rows)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for ax, (name, column) in zip(panels, shown.items(), strict=True):
            draw_ladder(ax, column, [paper_accuracy(row, table.rows, name) for row in table.rows])
            papers = paper_dataset(name)
            ax.set_title(f"{name}\n(paper: {papers})" if papers else name, fontsize="medium")
        handles = [handle for ax in panels for handle in ax.get_legend_handles_labels()[0]]
        if handles:
            figure.legend(handles=handles[:1], loc="outside lower right")
        save = partial(figure.savefig, format="png", dpi=150, metadata=PICTURE_METADATA)
        write_atomically(path, save)


def draw_ladder(ax: Axes, column: Sequence[Entry], paper: Sequence[float | None]) -> None:
    """Draw the rows of one data set from the top, those without a result as "not run"."""
    for place, entry in enumerate(column):
        _draw_row(ax, place, entry)
    beside = [(value, place) for place, value in enumerate(paper) if value is not None]
    if beside:
        values, places = zip(*beside, strict=True)
        ax.plot(values, places, _PAPER_MARKER, ms=6, mfc="none", mec=_INK, ls="", label="paper")
    ax.set_yticks(range(len(column)), [textwrap.fill(entry.row.title, 24) for entry in column])
    ax.set_ylim(len(column) - 0.4, -0.6)
    ax.set_xlabel("test accuracy and its 95 % interval, %")
    ax.grid(visible=False, axis="y")


def _draw_row(ax: Axes, place: int, entry: Entry) -> None:
    if not entry.results:
        above = place - 0.2  # the paper's figure may stand in the row
        ax.text(0.02, above, "not run", transform=ax.get_yaxis_transform(), fontsize="small")
        return
    low, high = entry.interval
    colour = _COLOURS[place % len(_COLOURS)]
    several = len(entry.results) > 1
    ax.hlines(place, low, high, color=colour, lw=3, alpha=0.55)
    if several:
        seeds = [100 * accuracy for accuracy in entry.accuracies]
        ax.plot(seeds, [place] * len(seeds), "|", color=colour, ms=9)
    filled = colour if several else "none"
    ax.plot([entry.mean], [place], "o", ms=7, mfc=filled, mec=colour, mew=1.8)


def _in_words(entry: Entry, paper: float | None) -> str:
    low, high = entry.interval
    beside = "" if paper is None else f", paper {paper:.1f} %"
    return f"{entry.row.title} {entry.mean:.1f} % ({low:.1f} to {high:.1f}){beside}"


def learning_curves(entries: Sequence[Entry]) -> list[Chart]:
    """Draw the loss, and the validation accuracy, of each epoch; nothing where none trained.

    Every seed has its line, every row its colour and dashes. There is no chart of the accuracy
    where no photos were held out for validation.
    """
    trained = [entry for entry in entries if any(result.history for result in entry.results)]
    charts = []
    if trained:
        charts.append(_curves(trained, _draw_losses, "Loss", "loss, nats"))
    if any(
        _series(result, "validation_accuracy")[0] for entry in trained for result in entry.results
    ):
        charts.append(
            _curves(trained, _draw_accuracy, "Validation accuracy", "validation accuracy, %")
        )
    return charts


def _curves(
    entries: Sequence[Entry], draw: Callable[[Axes, Result, int], None], what: str, label: str
) -> Chart:
    with _style():
        figure = Figure(figsize=(4.5, 3.3 + 0.2 * len(entries)), layout="constrained")
        ax = figure.add_subplot(xlabel="epoch", ylabel=label)
        for place, entry in enumerate(entries):
            for result in entry.results:
                draw(ax, result, place)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _add_legend(figure, ax, entries, losses=draw is _draw_losses)
        return _chart(figure, f"{what} of each epoch. " + " ".join(map(_epochs_in_words, entries)))


def _draw_losses(ax: Axes, result: Result, place: int) -> None:
    colour = _COLOURS[place % len(_COLOURS)]
    epochs, train = _series(result, "train_loss")
    ax.plot(epochs, train, color=colour, lw=1.4, ls=_DASHES[place % len(_DASHES)])
    epochs, validation = _series(result, "validation_loss")
    ax.plot(epochs, validation, color=colour, lw=1, marker=".", ms=4, alpha=0.7)


def _draw_accuracy(ax: Axes, result: Result, place: int) -> None:
    colour = _COLOURS[place % len(_COLOURS)]
    epochs, accuracy = _series(result, "validation_accuracy")
    percent = [100 * value for value in accuracy]
    ax.plot(epochs, percent, color=colour, lw=1.4, ls=_DASHES[place % len(_DASHES)])
    if result.best_epoch in epochs:
        best = epochs.index(result.best_epoch)
        ax.plot(epochs[best], percent[best], "o", ms=6, mfc="none", mec=colour, mew=1.5)


def _series(result: Result, name: str) -> tuple[list[float], list[float]]:
    points = [(record["epoch"], record[name]) for record in result.history if name in record]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _add_legend(figure: Figure, ax: Axes, entries: Sequence[Entry], *, losses: bool) -> None:
    titles = (
        [entry.row.title for entry in entries] if len(entries) > 1 or not losses else ["training"]
    )
    handles = [
        ax.plot([], [], color=_COLOURS[place % len(_COLOURS)], ls=_DASHES[place % len(_DASHES)])[0]
        for place in range(len(entries))
    ]
    if losses:
        titles.append("validation loss")
        handles += ax.plot([], [], color=_SOFT_INK, lw=1, marker=".", ms=4)
    else:
        titles.append("epoch kept")
        handles += ax.plot([], [], "o", mfc="none", mec=_SOFT_INK, mew=1.5)
    figure.legend(handles, [textwrap.fill(title, 40) for title in titles], loc="outside lower left")


def _epochs_in_words(entry: Entry) -> str:
    kept = [
        f"epoch {result.best_epoch} of {len(result.history)} kept, validation accuracy "
        f"{100 * accuracy[-1]:.1f} % in the last"
        if (accuracy := _series(result, "validation_accuracy")[1])
        else f"{len(result.history)} epochs"
        for result in entry.results
    ]
    return f"{entry.row.title}: {'; '.join(kept)}."


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


def thumbnail(path: Path) -> str | None:
    """Return a small copy of a photo as a data URI; None if it cannot be made."""
    file = io.BytesIO()
    try:
        image = read_image(path)
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        image.save(file, "WEBP", quality=WEBP_QUALITY)
    except (ImageError, OSError, KeyError):  # of Pillow, where it was built without WebP
        return None
    return webp_uri(file.getvalue())


def webp_uri(content: bytes) -> str:
    """Return the content of a WebP file as a data URI."""
    return "data:image/webp;base64," + base64.b64encode(content).decode()


def reliability_chart(before: Sequence[Bin], after: Sequence[Bin]) -> Chart:
    """Draw the share of right answers over the probability shown, before and after calibration."""
    with _style():
        figure = Figure(figsize=(4.5, 4.5), layout="constrained")
        ax = figure.add_subplot(xlabel="probability shown, %", ylabel="right answers, %")
        ax.plot([0, 100], [0, 100], color=_SOFT_INK, lw=1, ls=":", label="perfect")
        for bins, colour, marker, name in zip(
            (before, after), _COLOURS[1::-1], "so", ("before", "after"), strict=True
        ):
            ends = [wilson_interval(b.right, b.photos) for b in bins]
            shown = [100 * b.confidence for b in bins]
            ax.vlines(shown, *(100 * np.array(ends).T), color=colour, lw=2, alpha=0.35)
            share = [100 * b.right / b.photos for b in bins]
            ax.plot(shown, share, marker, ms=5, ls="-", lw=1, color=colour, label=name)
        ax.set(xlim=(0, 102), ylim=(0, 102))
        figure.legend(loc="outside lower center", ncols=3)
        words = [
            f"{name} the temperature {expected_calibration_error(list(bins)):.3f}"
            for name, bins in (("before", before), ("after", after))
        ]
        return _chart(figure, f"Reliability: expected calibration error {', '.join(words)}.")


def coverage_chart(
    curve: tuple[NDArray[np.float64], NDArray[np.float64]], chosen: tuple[float, float] | None
) -> Chart:
    """Draw the share of right answers over the share of photos answered.

    Args:
        curve: both shares for the k surest photos, (n,) each, 0..1.
        chosen: both at the threshold; None where no photo is refused.
    """
    coverage, share = (100 * values for values in curve)
    with _style():
        figure = Figure(figsize=(4.5, 4.5), layout="constrained")
        ax = figure.add_subplot(xlabel="photos answered, %", ylabel="right answers among them, %")
        ax.plot(coverage, share, color=_COLOURS[0], lw=1.6, label="the surest photos")
        if chosen is not None:
            at = [100 * value for value in chosen]
            ax.plot(*([value] for value in at), "o", ms=8, color=_COLOURS[1], label="threshold")
        ax.set(xlim=(0, 102), ylim=(min(share.min(), 90.0) - 1, 100.5))
        figure.legend(loc="outside lower center", ncols=2)
        words = f"{share[-1]:.1f} % are right where all photos are answered"
        if chosen is not None:
            words += f", {at[1]:.1f} % where {at[0]:.1f} % are, at the threshold"
        return _chart(figure, f"Accuracy and coverage: {words}.")
