"""Our own results below a folder of photos: marked as they are written, known when it is read.

A folder that is made for results has a marker in it. Pictures may go to any folder, also one with
photos, which must not be marked: they say in their first bytes what they are.
"""

from __future__ import annotations

import os
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

MARKER = ".lca_fused_output"
"""File in a folder of results."""
PICTURE_METADATA = {"Software": "lca_fused"}
"""Text of every PNG that is written, for matplotlib's and Pillow's `metadata`."""

_MARKER_TEXT = "Results of lca_fused. While this file is here, the folder is not read as photos.\n"
_MADE = ("augmented", "cells", "embedded", "keypoints", "maps")
_PICTURE_TEXT = b"Software\0lca_fused"
_PICTURE_HEAD = 256  # bytes; the text follows the header, of 33


def mark_output(folder: Path) -> None:
    """Mark a folder that results go to, made if needed.

    One that has something in it is the user's: only what is made in it is marked. Where nothing
    can be written nothing is marked; what writes there next says why.
    """
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if is_output_folder(folder):
            return
        for made in [folder / name for name in _MADE] if any(folder.iterdir()) else [folder]:
            made.mkdir(exist_ok=True)
            (made / MARKER).write_text(_MARKER_TEXT)


def is_output_folder(folder: Path) -> bool:
    """Return whether a folder holds results, also of runs before there was a marker."""
    if any(os.path.isfile(folder / name) for name in (MARKER, "finetune.json")):
        return True
    return any(
        fnmatch(name, "*-seed*-*.model") or fnmatch(name, "*-seed*-*.model.pt")
        for _, folders, files in os.walk(folder / "cells")
        for name in (*folders, *files)
    )


def is_own_picture(file: Path) -> bool:
    """Return whether a regular file is a picture that was written here; reads a PNG's start."""
    if file.suffix.lower() != ".png":
        return False
    try:
        with file.open("rb") as content:
            return _PICTURE_TEXT in content.read(_PICTURE_HEAD)
    except OSError:
        return False
