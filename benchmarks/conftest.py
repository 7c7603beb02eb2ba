"""Options of the suite, and the list of what it measures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.cases import Case, cases
from benchmarks.problem import MEMORY_FORMATS

_DTYPES = ("float64", "float32", "bfloat16", "float16")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --shapes, --dtype and --memory-format."""
    group = parser.getgroup("LCA benchmarks")
    group.addoption(
        "--shapes",
        help="comma-separated sets (acceptance, curves, grid, rectangles) or shapes such as "
        "7x7-N16-C2048 (default: acceptance,curves,rectangles on a CPU, acceptance,grid,rectangles "
        "on a GPU)",
    )
    group.addoption("--dtype", choices=_DTYPES, help="default: float32 on a CPU, bfloat16 on a GPU")
    group.addoption(
        "--memory-format",
        choices=sorted(MEMORY_FORMATS),
        help="of the feature map (default: contiguous on a CPU, channels_last on a GPU)",
    )
    group.addoption(
        "--rows",
        type=Path,
        help="JSON file that every row is added to as soon as it is measured; "
        "pytest-benchmark's own is written when all is done",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every case."""
    if "case" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    try:
        found = cases(option("shapes"), option("dtype"), option("memory_format"))
    except ValueError as error:
        raise pytest.UsageError(f"--shapes: {error}") from error
    rows = [pytest.param(case, id=str(case), marks=_marks(case)) for case in found]
    metafunc.parametrize("case", rows)


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    marks = [pytest.mark.slow] if case.slow else []
    if case.device == "cuda":
        absent = not torch.cuda.is_available()
        marks += [pytest.mark.gpu, pytest.mark.skipif(absent, reason="torch finds no GPU")]
    return marks
