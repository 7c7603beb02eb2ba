"""Names of files and folders as text that can be compared, written and shown.

A name on a disk is bytes: an old archive leaves names that are not UTF-8, and one and the same
name is spelled in composed or in decomposed characters, by the system that wrote it.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path


def printable(name: str | Path) -> str:
    r"""Return a name as text of which every character can be encoded.

    Bytes that are no UTF-8 become escapes as in "caf\xe9"; any other name is left as it is.
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def class_name(folder: Path) -> str:
    """Return the name of the class whose photos are in `folder`: printable, and composed (NFC)."""
    return composed(printable(folder.name))


def composed(name: str) -> str:
    """Return a name as classes are named (NFC), however whoever typed it spells it."""
    return unicodedata.normalize("NFC", name)
