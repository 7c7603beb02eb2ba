"""What commands print where the console cannot show it."""

import os
import subprocess
import sys

import pytest

from experiments.console import printable

PRINTING = """
import logging
from experiments.console import set_up_console
set_up_console()
print("Фото/caf\\udce9 ▁")
logging.info("Фото/caf\\udce9 ▁")
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_the_console_cannot_show_is_escaped_on_both_streams(encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", PRINTING]
    run = subprocess.run(command, capture_output=True, env=environment, check=True)
    expected = "Фото/caf\udce9 ▁".encode(encoding, "backslashreplace")
    assert run.stdout.splitlines() == run.stderr.splitlines() == [expected]


def test_it_does_without_a_console(monkeypatch):
    from experiments.console import set_up_console

    monkeypatch.setattr(sys, "stdout", None)  # as where Windows starts a program without one
    set_up_console()


def test_bytes_that_are_no_text_become_escapes():
    assert printable("caf\udce9") == "caf\\udce9"
    assert printable("Фото") == "Фото"
