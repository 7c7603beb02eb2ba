"""A small study as a command: rows are stored as they are measured, and shown at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import tyro

from experiments.console import set_up_console
from experiments.storage import save_json

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


class Stored(Protocol):
    """Options of a study that say where its rows go."""

    @property
    def output(self) -> Path:
        """Folder of results.json."""


Options = TypeVar("Options", bound=Stored)


def run_row_by_row(
    kind: type[Options],
    measure: Callable[[Options], Iterator[Row]],
    show: Callable[[Sequence[Row]], str],
    arguments: Sequence[str] | None,
) -> tuple[int, Options, list[Row]]:
    """Measure what the command line asks for, and print it.

    Args:
        kind: type of the options.
        measure: yields the rows, plain values by their names.
        show: returns what is printed of all rows.
        arguments: of the command line; None for this program's.

    Returns:
        The exit status (2 where something given cannot be used), the options, and the rows.
    """
    set_up_console()
    options = tyro.cli(kind, args=arguments)
    rows: list[Row] = []
    try:
        for row in measure(options):
            rows.append(row)
            save_json(rows, options.output / "results.json")
            logger.info("%s", row)
    except (ValueError, OSError) as error:
        logger.error("error: %s", error)
        return 2, options, rows
    print(show(rows))
    return 0, options, rows
