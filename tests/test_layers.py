"""Who may import whom, as .importlinter says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_no_import_runs_upwards_or_in_a_circle():
    pytest.importorskip("importlinter")
    # In a process of its own: import-linter switches the loggers off that are there already.
    code = "from importlinter import cli; raise SystemExit(cli.lint_imports(no_cache=True))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
