"""Whether results can be written, found out before anything is computed for them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

_GIB = 1024**3


class OutputError(ValueError):
    """What is computed could not be written; the message says where and what to do."""


def check_folder(folder: Path, option: str) -> None:
    """See that files can be written into a folder, which may have to be made; leave no trace.

    Args:
        folder: folder that will be written to.
        option: command-line option that names the folder, for the error message.

    Raises:
        OutputError: it cannot be made or written to, or is a file.
    """
    _try_to_write(folder / f".{uuid.uuid4().hex}.tmp", f"{option} {folder}")


def make_folder(folder: Path, option: str) -> None:
    """Make a folder, and those it is in, and see that files can be written into it.

    Several processes may call it at a time, as long as none removes these folders meanwhile.

    Args:
        folder: folder that is written to from now on; it may exist already.
        option: command-line option that names the folder, for the error message.

    Raises:
        OutputError: it cannot be made or written to, or is a file.
    """
    with contextlib.suppress(OSError):  # the attempt below says why
        folder.mkdir(parents=True, exist_ok=True)
    check_folder(folder, option)


def check_file(file: Path, option: str) -> None:
    """See that a file can be written, or replaced where it is there already; leave no trace.

    Args:
        file: file that will be written.
        option: command-line option that names the file or its folder, for the error message.

    Raises:
        OutputError: it is a folder, is held by another program, or its folder cannot be written to.
    """
    if os.path.isdir(file):  # unlike Path's, false where the name is too long
        raise OutputError(f"{option}: {file} is a folder; expected a file: remove or rename it")
    if not os.path.exists(file):
        _try_to_write(file, f"{option} {file}")
        return
    check_folder(file.parent, option)
    if os.name == "nt":  # elsewhere a file may be replaced whoever has it open
        try:
            file.open("r+b").close()
        except OSError as error:
            raise OutputError(
                f"{option}: {file} cannot be replaced ({error.strerror}); close the program that "
                "has it open, or name another one"
            ) from error


def check_space(folder: Path, needed: int, what: str) -> None:
    """See that a disk has room.

    Args:
        folder: folder on the disk; it may not exist yet.
        needed: number of bytes that will be written.
        what: name of the files that will be written, for the error message.

    Raises:
        OutputError: there are fewer bytes free.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    try:
        free = shutil.disk_usage(there).free
    except OSError:  # a file system that does not tell
        return
    if free < needed:
        raise OutputError(
            f"the disk of {folder} has {free / _GIB:.2f} GiB free, and {what} may take "
            f"{needed / _GIB:.2f} GiB; make room, or name a folder on another disk"
        )


def missing_packages(names: Iterable[str]) -> list[str]:
    """Return which packages are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def _try_to_write(file: Path, what: str) -> None:
    """Write an empty file that is not there, with the folders it needs, and remove them again."""
    made: list[Path] = []
    try:
        for folder in reversed(file.absolute().parents):
            if not os.path.isdir(folder):
                folder.mkdir()
                made.append(folder)
        file.touch(exist_ok=False)
        file.unlink()
    except OSError as error:
        in_the_way = [path for path in file.parents if os.path.exists(path) and not path.is_dir()]
        reason = f"{in_the_way[0]} is a file" if in_the_way else error.strerror
        raise OutputError(
            f"{what} cannot be written: {reason}; name another place, or make this one writable"
        ) from error
    finally:
        for folder in reversed(made):
            folder.rmdir()
