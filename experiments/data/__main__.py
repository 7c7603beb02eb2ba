"""Photos on disk: what is missing, and fetching it.

    python -m experiments.data check grozi-120 --data-root DIR
    python -m experiments.data download grozi-120 --data-root DIR

Exit status: 0 when nothing is missing or odd, or all was fetched; 1 otherwise; 2 when the command
line cannot be used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from experiments.command_lines import command_line
from experiments.console import set_up_console
from experiments.data.catalog import SOURCES
from experiments.data.dataset import DataError
from experiments.data.folder import FOLDER
from experiments.data.source import Source
from lca_fused.photos.reading import ImageError

DataRoot = Annotated[
    Path | None, tyro.conf.arg(help="folder of the photos; default: LCA_DATA_ROOT")
]


class _UsageError(Exception):
    """The command line cannot be used."""


def check(source: tyro.conf.Positional[str], data_root: DataRoot = None) -> int:
    """List what is missing or odd in a source's photos.

    Args:
        source: name of the source, e.g. grozi-120.
        data_root: folder of the photos.
    """
    chosen, root = _source(source), _root(data_root)
    if chosen is FOLDER:
        raise _UsageError(f"photos of your own are checked by {command_line('check.py', root)}")
    findings = chosen.findings(root)
    for finding in findings:
        print(f"- {finding}")
    print(f"{source} in {root}: {len(findings) or 'no'} finding{'s' * (len(findings) != 1)}")
    return 1 if findings else 0


def download(source: tyro.conf.Positional[str], data_root: DataRoot = None) -> int:
    """Fetch a source's photos and unpack them.

    Args:
        source: name of the source, e.g. grozi-120.
        data_root: folder that the photos are downloaded into.
    """
    chosen, root = _source(source), _root(data_root)
    if chosen.download is None:
        print(f"{source} cannot be fetched by a program: {chosen.home}")
        return 1
    try:
        chosen.download(root)
    except (DataError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return check(source, root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: the command line) give."""
    set_up_console()
    try:
        return tyro.extras.subcommand_cli_from_dict(
            {"check": check, "download": download},
            prog="python -m experiments.data",
            description=__doc__.split("\n\n")[0] if __doc__ else None,
            args=arguments,
        )
    except _UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise _UsageError(f"the source is {name}; expected one of {', '.join(SOURCES)}")
    return SOURCES[name]


def _root(given: Path | None) -> Path:
    root = given or os.environ.get("LCA_DATA_ROOT")
    if not root:
        raise _UsageError("no folder was given; pass --data-root DIR or set LCA_DATA_ROOT")
    return Path(root)


if __name__ == "__main__":
    sys.exit(main())
