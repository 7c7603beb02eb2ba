"""What every command does first: messages for the terminal, whatever it can show."""

from __future__ import annotations

import io
import logging
import sys


def set_up_console() -> None:
    """Log plain messages to standard error, and let no character end the program.

    Names of photos and classes may hold any bytes and any script, while the console or the file
    that output is redirected to may be in ASCII or cp1252: what it cannot hold is written as
    backslash escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def printable(text: object) -> str:
    """Return text that UTF-8 can hold: bytes of a name that are no text as backslash escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")
