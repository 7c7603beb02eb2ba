"""Measured rows in files: pytest-benchmark's JSON in, one small JSON per machine out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.shapes import Shape

Row = dict[str, Any]
"""What benchmarks/test_heads.py stores of a row."""

_SETUP = ("device", "device_name", "threads", "dtype", "memory_format")
_CASE = ("shape", "mode", "peer")


def load(paths: Iterable[Path]) -> list[Row]:
    """Return the rows of files of either form; a row measured again replaces the earlier one.

    Raises:
        ValueError: a file holds something else.
    """
    rows: list[Row] = []
    for path in paths:
        content = json.loads(path.read_text())
        found = _extra_info(content) if "benchmarks" in content else content.get("rows", [])
        if not all(key in row for row in found for key in _CASE):
            raise ValueError(f"{path} holds no rows of benchmarks/test_heads.py")
        rows += found
    return merged(rows)


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the rows, one per line, without pytest-benchmark's lists of single times."""
    lines = ",\n".join(json.dumps(_rounded(row), sort_keys=True) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"rows": [\n{lines}\n]}}\n')


def append(row: Row, path: Path) -> None:
    """Add a row to a file of saved rows, in place of an earlier measurement of the same."""
    earlier = load([path]) if path.exists() else []
    partial = path.with_name(path.name + ".partial")
    save(merged([*earlier, row]), partial)
    partial.replace(path)


def merged(rows: Iterable[Row]) -> list[Row]:
    """Return the rows; one that was measured again replaces the earlier one."""
    return list({(*setup_of(row), *_case(row)): row for row in rows}.values())


def setup_of(row: Row) -> tuple[object, ...]:
    """Device type, its name, threads, dtype and memory format: what one table has in common."""
    return tuple(row[key] for key in _SETUP)


def shape_of(row: Row) -> Shape:
    """Return the row's shape."""
    return Shape(**row["shape"])


def _case(row: Row) -> tuple[object, ...]:
    return tuple(shape_of(row) if key == "shape" else row[key] for key in _CASE)


def _extra_info(content: Row) -> list[Row]:
    return [each["extra_info"] for each in content["benchmarks"] if "peer" in each["extra_info"]]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
