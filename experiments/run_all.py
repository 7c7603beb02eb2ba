"""Run methods x data sets x seeds and print the table beside the paper's.

    python experiments/run_all.py                          # generated products, no downloads
    python experiments/run_all.py folder --data-root DIR   # your own photos
    python experiments/run_all.py paper --data-root DIR    # the paper's Table I
    python experiments/run_all.py grocery-store --help

Every finished cell is stored and skipped when run again; a run that was killed continues at the
cell and epoch where it stopped. With several GPUs: torchrun --nproc-per-node N in place of python.
Exit status: 0 when everything ran that could (the table names what was never given or cannot be
fetched, data or weights), 1 when something that was given could not be used or written, 2 when
the command line itself cannot be used or its output not be written, 130 when it was interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

if not __package__:  # run as a file, from whatever folder: the packages are beside its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.console import set_up_console
from experiments.outputs import OutputError
from experiments.report.attempt import attempt_report
from experiments.study.options import command, parse_study
from experiments.study.runner import Runner
from experiments.training.distributed import INTERRUPTED, on_first, rank, run_together

_NEXT = """go on with photos of your own, a folder per product:
  python experiments/finetune.py PHOTOS --output runs/mine   # a classifier and its report
  python experiments/run_all.py folder --data-root PHOTOS    # this table, of your products"""


@run_together
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study that `arguments` (default: the command line) describe."""
    set_up_console()
    preset, study = parse_study(sys.argv[1:] if arguments is None else arguments)
    again = command(preset, study)
    try:
        runner = Runner(study, study.report or study.output / preset, again)
    except ValueError as error:
        logging.error("error: %s", error)
        return 2
    try:
        table = runner.run()
    except OutputError as error:
        logging.error("error: %s; finished cells are kept", error)
        return 2
    except BrokenProcessPool:
        logging.error(
            "error: a process that computed a cell was killed, for want of memory perhaps; "
            "finished cells are kept: start the same command again, with fewer --jobs"
        )
        return 1
    except KeyboardInterrupt:
        logging.error("interrupted: the same command goes on where it stopped")
        logging.error("  %s", again)
        return INTERRUPTED
    print(table)
    logging.info("written to %s", ", ".join(map(str, runner.written)))
    failed = study.page and on_first(attempt_report)(study.output)
    if preset == "embedded" and rank() == 0:
        print(_NEXT)
    return 1 if runner.failed or failed else 0


if __name__ == "__main__":
    sys.exit(main())
