"""Who may import whom, as .importlinter says."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_no_import_runs_upwards_or_in_a_circle(monkeypatch, capsys):
    cli = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(Path(__file__).parent.parent)
    status = cli.lint_imports(config_filename=".importlinter", no_cache=True)
    assert status == 0, capsys.readouterr().out
