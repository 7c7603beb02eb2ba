"""What an option of a study changed: the same rows of two of its tables, one beside the other.

python -m experiments.report.compare BEFORE.json AFTER.json

A table's JSON is what a study writes into its output folder, or as --report says; the results it
names are read from the folder `cells` beside it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tabulate import tabulate

from experiments.console import set_up_console
from experiments.report.table import in_short, read_table
from experiments.results import Entry, Result, Table, difference


class ComparisonError(ValueError):
    """Two tables cannot be compared; the message says why."""


@dataclass(frozen=True)
class Options:
    """Print by how much each row of a table is more accurate in another one."""

    before: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BEFORE.json")]
    """The table that is compared against."""
    after: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AFTER.json")]
    """The table whose gains are printed."""


def compare(before: Table, after: Table) -> str:
    """Return a table in Markdown of the rows and data sets that both have results of.

    Raises:
        ComparisonError: there are none, or a data set's test photos are not the same.
    """
    lines = []
    for key, later in after.entries.items():
        earlier = before.entries.get(key)
        if earlier is not None and earlier.results and later.results:
            _check_photos(earlier, later)
            gain = in_short(difference(earlier, later))
            lines.append([later.row.title, later.dataset, str(earlier), str(later), gain])
    if not lines:
        raise ComparisonError("the tables have no row in common whose results are there")
    headers = ["method", "data set", "before", "after", "difference"]
    return tabulate(lines, headers, tablefmt="github", disable_numparse=True)


def read(path: Path) -> Table:
    """Read a table and the results that it names.

    Raises:
        ComparisonError: the file is no study's table, or no result of it can be read.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        names = {cell for entry in stored["entries"] for cell in entry["cells"]}
        results = {name: Result.read(path.parent / name) for name in sorted(names)}
        return read_table(stored, results)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ComparisonError(
            f"{path} cannot be compared ({error!r}); expected a table that run_all.py wrote, with "
            "its folder `cells` beside it"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; return the exit status."""
    set_up_console()
    options = tyro.cli(
        Options,
        args=None if arguments is None else list(arguments),
        prog="python -m experiments.report.compare",
    )
    try:
        print(compare(read(options.before), read(options.after)))
    except ComparisonError as error:
        logging.error("error: %s", error)
        return 2
    return 0


def _check_photos(before: Entry, after: Entry) -> None:
    contents = {tuple(result.contents) for entry in (before, after) for result in entry.results}
    if len(contents) > 1:
        raise ComparisonError(
            f"{after.dataset} was tested on other photos in one of the tables; differences are of "
            "the same photos: run the older study again"
        )


if __name__ == "__main__":
    sys.exit(main())
