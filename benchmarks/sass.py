"""Instruction counts of every kernel: `python -m benchmarks.sass`; needs triton, but no GPU.

Every kernel is compiled for every target at the benchmark shapes and disassembled; the figures
are read off the machine code.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from lca_fused.backends.triton_gpu import no_compiler

if TYPE_CHECKING:
    from benchmarks.kernel_table import Row

TARGETS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942")
_TEXT_COLUMNS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the process's exit status."""
    options = _parser().parse_args(arguments)
    if (reason := no_compiler()) is not None:
        print(f"benchmarks.sass compiles the kernels: {reason}", file=sys.stderr)
        return 1
    rows = compiled_rows(options.target or TARGETS, options.kernel)
    if not rows:
        print(f"no kernel's name contains {options.kernel!r}", file=sys.stderr)
        return 1
    print("\n".join(markdown(rows)))
    if options.json is not None:
        options.json.write_text(json.dumps(to_json(rows), indent=1) + "\n")
    return 0


def compiled_rows(targets: Sequence[str], kernel: str) -> list[Row]:
    """Compile every launch whose name contains `kernel` for every target."""
    from benchmarks.kernel_table import benchmark_cases, compiled_row, launches_of

    rows = []
    for case in benchmark_cases():
        for target in targets:
            for name, launch in launches_of(case, target):
                if kernel in name:
                    rows.append(row := compiled_row(case, name, launch))
                    print(f"{name} {row.map} {target} {row.compile_seconds:.1f} s", file=sys.stderr)
    return rows


def markdown(rows: Sequence[Row]) -> list[str]:
    """Lines of a table in Markdown, columns aligned."""
    classes = tuple(rows[0].instructions)
    head = ["kernel", "target", "map", "images", "dtype"]
    head += ["regs", "spilled B", "shared B", "all", *classes]
    head += ["FP/rect", "slots/rect", "slots/col", "cycles/col", "compile s"]
    table = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    lines = [
        "| " + " | ".join(_aligned(cell, widths, place) for place, cell in enumerate(line)) + " |"
        for line in table
    ]
    ends = ["-" if place < _TEXT_COLUMNS else ":" for place in range(len(head))]
    rule = "|".join("-" * (width + 1) + end for width, end in zip(widths, ends, strict=True))
    return [lines[0], f"|{rule}|", *lines[1:]]


def to_json(rows: Sequence[Row]) -> dict[str, object]:
    """The rows and what compiled them."""
    return {"triton": version("triton"), "kernels": [asdict(row) for row in rows]}


def _cells(row: Row) -> list[str]:
    counts = row.instructions
    cells = [row.kernel, row.target, row.map, str(row.images), row.dtype]
    cells += [str(row.registers), str(row.spilled_bytes), str(row.shared_bytes)]
    cells += [str(sum(counts.values())), *map(str, counts.values())]
    per_rectangle = (row.arithmetic_per_rectangle, row.slots_per_rectangle)
    cells += ["-" if figure is None else f"{figure:.2f}" for figure in per_rectangle]
    per_column = (row.slots_per_column, row.cycles_per_column)
    cells += ["-" if figure is None else f"{figure:.0f}" for figure in per_column]
    return [*cells, f"{row.compile_seconds:.1f}"]


def _aligned(cell: str, widths: Sequence[int], place: int) -> str:
    return cell.ljust(widths[place]) if place < _TEXT_COLUMNS else cell.rjust(widths[place])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sass", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument(
        "--target", action="append", choices=TARGETS, help="only this target (may be repeated)"
    )
    parser.add_argument(
        "--kernel", default="", metavar="NAME", help="only kernels whose name contains this"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
