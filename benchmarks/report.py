"""Tables and plots from measured rows.

`python -m benchmarks.report FILE.json... [--save FILE] [--page FILE]
[--tables FILE] [--plots DIR]` reads pytest-benchmark's JSON files or saved results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks.cases import (
    INFERENCE,
    INFERENCE_GRAPH,
    TRAINING,
    TRAINING_GRAPH,
    python_shows,
)
from benchmarks.peers import FLOOR, PEERS
from benchmarks.results import Row, load, save, setup_of, shape_of
from benchmarks.shapes import HEADLINE, Shape

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
NOT_MEASURED = "not measured"
_TITLES = {
    INFERENCE: "Inference",
    INFERENCE_GRAPH: "Inference, replay of a CUDA graph",
    TRAINING: "Training, forward and backward",
    TRAINING_GRAPH: "Training, replay of a CUDA graph",
}
_GRAPHS = (INFERENCE_GRAPH, TRAINING_GRAPH)
_SUMMARY = (FLOOR, "lca", "lca-eager", "reference", "gap", "gap-fc", "timm-attention")
_DEVICES = {"cpu": "CPU", "cuda": "GPU"}
_DETAILS = "## Every head, with quartiles and memory"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what is asked for, or print the tables; return the process's exit status."""
    options = _parser().parse_args(arguments)
    rows = load(options.files)
    if options.save is not None:
        save(rows, options.save)
    if options.page is not None:
        block = f"{summary(rows)}\n\n{_DETAILS}\n\n{tables(rows, headline=True)}"
        options.page.write_text(replace_block(options.page.read_text(), block))
    if options.tables is not None:
        options.tables.write_text(tables(rows, headline=False) + "\n")
    if options.plots is not None:
        from benchmarks.plots import plot_all

        plot_all(rows, options.plots)
    if not any(value for name, value in vars(options).items() if name != "files"):
        print(tables(rows, headline=True))
    return 0


def replace_block(text: str, block: str) -> str:
    """Return `text` with `block` between the two markers.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"expected one {BEGIN} and after it one {END}, each on its own line")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def tables(rows: Sequence[Row], headline: bool) -> str:
    """Return the tables of every device and setup in Markdown.

    Args:
        rows: measured rows, as `load` returns them.
        headline: only the shapes of `HEADLINE`, measured or not; else every measured shape.
    """
    return _by_setup(rows, lambda own: _setup_tables(own, headline))


def summary(rows: Sequence[Row]) -> str:
    """Return one table per device and setup: what most people weigh, inference and training."""
    return _by_setup(rows, _summary_table)


def _by_setup(rows: Sequence[Row], tables_of: Callable[[Sequence[Row]], list[str]]) -> str:
    parts = []
    for device, title in _DEVICES.items():
        setups = dict.fromkeys(setup_of(row) for row in rows if row["device"] == device)
        if not setups:
            parts.append(f"**{title}**: {NOT_MEASURED}.")
        for setup in setups:
            own = [row for row in rows if setup_of(row) == setup]
            parts += [_heading(own), *tables_of(own)]
    return "\n\n".join(parts)


def _summary_table(rows: Sequence[Row]) -> list[str]:
    found = {(row["peer"], row["mode"], shape_of(row)): row for row in rows}
    shapes = HEADLINE[rows[0]["device"]]

    # A GPU's columns are the kernels' own time; what Python adds is the host's, and in the pages.
    modes = _GRAPHS if rows[0]["device"] == "cuda" else (INFERENCE, TRAINING)

    def cell(peer: str, shape: Shape) -> str:
        measured = [found.get((peer, mode, shape)) for mode in modes]
        if not any(measured):
            return NOT_MEASURED
        return " / ".join(NOT_MEASURED if row is None else _median(row) for row in measured)

    lines = [[PEERS[peer].title, *(cell(peer, shape) for shape in shapes)] for peer in _SUMMARY]
    table = _grid(lines, shapes)
    return ["Replays of CUDA graphs:", table] if modes == _GRAPHS else [table]


def _setup_tables(rows: Sequence[Row], headline: bool) -> list[str]:
    measured = sorted({shape_of(row) for row in rows})
    device = rows[0]["device"]
    shapes = list(HEADLINE[device]) if headline else measured
    parts: list[str] = []
    for mode, title in _TITLES.items():
        found = {(row["peer"], shape_of(row)): row for row in rows if row["mode"] == mode}
        if not found:
            continue
        graphs = mode in _GRAPHS
        modes_shapes = [shape for shape in shapes if not graphs or python_shows(device, shape)]
        parts += [f"{title}, time / floor:", _table(found, modes_shapes, _ratio)]
        if mode == TRAINING:
            parts += [f"{title}, peak extra memory:", _table(found, modes_shapes, _memory)]
    return parts


def _heading(rows: Sequence[Row]) -> str:
    first = rows[0]
    versions = [
        f"{name} {' and '.join(found)}"
        for name in first["versions"]
        if (found := sorted({row["versions"][name] for row in rows if row["versions"].get(name)}))
    ]
    dates = sorted({row["date"] for row in rows})
    threads = f", {first['threads']} threads" if first["device"] == "cpu" else ""
    return (
        f"**{first['device_name']}**{threads}, {first['dtype']}, {first['memory_format']}; "
        f"{', '.join(versions)}; {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else "")
    )


def _table(
    found: dict[tuple[str, Shape], Row], shapes: Sequence[Shape], cell: Callable[[Row], str]
) -> str:
    device = next(iter(found.values()))["device"]
    lines = [
        [PEERS[peer].title]
        + [cell(found[peer, s]) if (peer, s) in found else NOT_MEASURED for s in shapes]
        for peer in PEERS
        if device in PEERS[peer].devices
    ]
    return _grid(lines, shapes)


def _grid(lines: Sequence[Sequence[str]], shapes: Sequence[Shape]) -> str:
    """Return lines as a table; those without any measurement are named below it."""
    measured = [line for line in lines if set(line[1:]) != {NOT_MEASURED}]
    headers = ["", *(_short(shape) for shape in shapes)]
    table = tabulate(measured, headers=headers, tablefmt="github", disable_numparse=True)
    missing = "; ".join(line[0] for line in lines if line not in measured)
    return f"{table}\n\nNot measured: {missing}." if missing else table


def _short(shape: Shape) -> str:
    channels = f"C={shape.c}" if shape.c == shape.d else f"C={shape.c}, D={shape.d}"
    return f"{shape.height}x{shape.width}, N={shape.n}, {channels}"


def _ratio(row: Row) -> str:
    if row["peer"] == FLOOR or "refused" in row:
        return _median(row)
    low, high = row["ratio_quartiles"]
    return f"{_median(row)} ({_digits(low)}-{_digits(high)})"


def _median(row: Row) -> str:
    if "refused" in row:
        return f"wrong, error {max(row['errors'].values()):.1e}"
    return f"{1e3 * row['seconds'][1]:.3g} ms" if row["peer"] == FLOOR else _digits(row["ratio"])


def _digits(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def _memory(row: Row) -> str:
    if "refused" in row:
        return NOT_MEASURED
    size = row["extra_bytes"]
    return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e9:.3g} GB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="JSON files with measured rows")
    parser.add_argument("--save", type=Path, help="write the rows as one small JSON file")
    parser.add_argument("--page", type=Path, help="put a summary and tables between its markers")
    parser.add_argument("--tables", type=Path, help="write the tables of every measured shape")
    parser.add_argument("--plots", type=Path, help="write PNG files into this folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
