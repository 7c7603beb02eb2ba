"""Plots of measured rows, one PNG each; what was not measured is left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from benchmarks.cases import INFERENCE, TRAINING
from benchmarks.peers import FLOOR, PEERS
from benchmarks.results import Row, setup_of, shape_of
from benchmarks.shapes import Shape, is_rectangle_shape

Point = Callable[[Row], float]


def plot_all(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the plots of every device and setup into `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for setup in dict.fromkeys(map(setup_of, rows)):
        own = [row for row in rows if setup_of(row) == setup and "refused" not in row]
        if not own:
            continue
        prefix = "-".join(str(own[0][key]) for key in ("device", "dtype", "memory_format"))
        for name, figure in _figures(own).items():
            path = folder / f"{prefix}-{name}.png"
            figure.savefig(path, dpi=120)
            written.append(path)
    return written


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    heads = [row for row in rows if not is_rectangle_shape(shape_of(row))]
    priced = [row for row in rows if is_rectangle_shape(shape_of(row)) and row["peer"] != FLOOR]
    milliseconds = milliseconds_beside_one_floor(rows)
    figures = {}
    for mode in (INFERENCE, TRAINING):
        chosen = [row for row in heads if row["mode"] == mode]
        square = [row for row in chosen if shape_of(row).height == shape_of(row).width]
        by_side = _longest(square, lambda s: (s.c, s.d, s.n), lambda s: s.height)
        by_batch = _longest(chosen, lambda s: (s.c, s.d, -s.height, -s.width), lambda s: s.n)
        figures[f"{mode}-time-by-side"] = _figure(by_side, "map side", _side, "ms", milliseconds)
        figures[f"{mode}-time-by-batch"] = _figure(by_batch, "batch", _n, "ms", milliseconds)
        figures[f"{mode}-memory-by-batch"] = _figure(by_batch, "batch", _n, "MB extra", _megabytes)
        figures[f"{mode}-rectangle-by-side"] = _figure(
            [row for row in priced if row["mode"] == mode],
            "map side",
            _side,
            "ps per rectangle and feature, beyond the floor",
            rectangle_picoseconds,
        )
    return {name: figure for name, figure in figures.items() if figure is not None}


def rectangle_picoseconds(row: Row) -> float:
    """Time beyond the floor, divided by N * D * rectangles of a map."""
    shape = shape_of(row)
    beyond = row["seconds"][1] - row["floor_seconds"][1]
    return float(1e12 * beyond / (shape.n * shape.d * shape.rectangles))


def milliseconds_beside_one_floor(rows: Iterable[Row]) -> Point:
    """Return what gives a row's time: its ratio to the floor, times one floor for all peers.

    Each peer ran beside a floor of its own, and those differ with what else the machine did.
    """
    floors: dict[tuple[Shape, str], list[float]] = defaultdict(list)
    for row in rows:
        floors[shape_of(row), row["mode"]].append(row["floor_seconds"][1])
    common = {key: median(seconds) for key, seconds in floors.items()}
    return lambda row: float(1e3 * row["ratio"] * common[shape_of(row), row["mode"]])


def _longest(
    rows: Iterable[Row], key: Callable[[Shape], Any], along: Callable[[Shape], int]
) -> list[Row]:
    """Return the rows of equal `key` with most different values of `along`; ties: largest key."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(shape_of(row))].append(row)
    if not groups:
        return []
    best = max(groups, key=lambda k: (len({along(shape_of(row)) for row in groups[k]}), k))
    return groups[best]


def _figure(rows: Sequence[Row], x_label: str, x: Point, y_label: str, y: Point) -> Figure | None:
    if len({x(row) for row in rows}) < 2:
        return None
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for peer in PEERS:
        points = sorted((x(row), y(row)) for row in rows if row["peer"] == peer and y(row) > 0)
        if points:
            style: dict[str, Any] = {"color": "black", "linestyle": "--"} if peer == FLOOR else {}
            axes.plot(*zip(*points, strict=True), marker="o", label=peer, **style)
    ticks = sorted({x(row) for row in rows})
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_title(_title(rows), fontsize="small")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _title(rows: Sequence[Row]) -> str:
    first, shapes = rows[0], {shape_of(row) for row in rows}
    fixed: dict[str, set[Any]] = {
        "N": {shape.n for shape in shapes},
        "C": {shape.c for shape in shapes},
        "D": {shape.d for shape in shapes},
        "map": {f"{shape.height}x{shape.width}" for shape in shapes},
    }
    named = [f"{name}={values.pop()}" for name, values in fixed.items() if len(values) == 1]
    return f"{first['mode']}, {first['device_name']}, {first['dtype']}, {', '.join(named)}"


def _side(row: Row) -> float:
    return shape_of(row).height


def _n(row: Row) -> float:
    return shape_of(row).n


def _megabytes(row: Row) -> float:
    return float(row["extra_bytes"] / 1e6)
