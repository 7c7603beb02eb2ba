"""Write the report of a finished run.

python -m experiments.report RUN_DIR
python -m experiments.report RUN_DIR --data-root DIR   # where the photos were moved
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.console import set_up_console
from experiments.outputs import OutputError, check_file
from experiments.report.page import IncompleteReportError, write_report
from experiments.report.run import REPORT_FILE, RunError


@dataclass(frozen=True)
class Options:
    """Write RUN_DIR/report.html, one self-contained file about a finished run."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """The output folder of run_all.py or finetune.py."""
    data_root: Path | None = None
    """Folder that holds the photos where they were moved since; default: the environment variable
    LCA_DATA_ROOT. Without the photos none are shown."""
    output: Path | None = None
    """File to write; default: RUN_DIR/report.html."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report that `arguments` (default: the command line) ask for.

    Return the exit status: 0, 1 where a part of it could not be made, 2 where nothing could.
    """
    set_up_console()
    options = tyro.cli(
        Options,
        args=None if arguments is None else list(arguments),
        prog="python -m experiments.report",
    )
    root = options.data_root or os.environ.get("LCA_DATA_ROOT")
    try:
        check_file(options.output or options.run_dir / REPORT_FILE, "--output")
        path = write_report(options.run_dir, Path(root) if root else None, options.output)
    except (RunError, OutputError, OSError) as error:
        logging.error("error: %s", error)
        return 2
    except IncompleteReportError as error:
        logging.error("error: %s", error)
        return 1
    print(path.absolute())
    return 0


if __name__ == "__main__":
    sys.exit(main())
