"""The report as the last step of a command, whose results are stored whatever becomes of it."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def attempt_report(output: Path) -> bool:
    """Write the report of a run and print where it is; return whether that failed.

    Args:
        output: folder of the run, as `experiments.report.page.write_report` takes it.
    """
    try:
        from experiments.report.page import IncompleteReportError, write_report
    except ImportError as error:
        logger.error("no report: %s; install what it needs and run this command again", error)
        return False
    try:
        print(f"report: {write_report(output).absolute()}")
    except IncompleteReportError as error:
        logger.error("error: %s", error)
        return True
    except OSError as error:
        logger.error("error: no report: %s; results are stored all the same", error)
        return True
    except Exception:
        logger.exception("error: no report; results are stored all the same")
        return True
    return False
