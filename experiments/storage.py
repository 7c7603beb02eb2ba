"""Files that are either whole or absent: a run may be killed at any moment."""

from __future__ import annotations

import argparse
import errno
import json
import os
import pathlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

_SCALAR = np.float64(0).__reduce__()[0]


# What trainers store beside weights, and what holds values alone: options, paths, NumPy's numbers.
# Pure paths, as others cannot be made on another system than their own.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "bool")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(
        (getattr(pathlib, f"Pure{kind}Path"), f"{module}.{kind}Path")
        for kind in ("Posix", "Windows")
        for module in ("pathlib", "pathlib._local")
    ),
]


class CheckpointError(ValueError):
    """A file does not hold what `save_checkpoint` writes."""


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values to `path`, atomically.

    Raises:
        OSError: it cannot be written; what was at `path` stays.
    """
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(errno.EIO, f"cannot be written ({error})", str(path)) from error


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; runs no code from the file.

    Raises:
        CheckpointError: the file is not such a checkpoint.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({error}); expected a file of tensors and "
            "plain values written by torch.save. A run's own *.checkpoint.pt may be deleted: its "
            "cell then starts again"
        ) from error


def save_text(text: str, path: Path) -> None:
    """Write `text` to `path` in UTF-8, atomically; bytes that are no text as backslash escapes."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def save_json(value: Any, path: Path) -> None:
    """Write `value` to `path` as JSON, atomically."""
    save_text(json.dumps(value, indent=1) + "\n", path)


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let `write` fill a file opened in binary mode that becomes `path` once it is whole.

    Raises:
        OSError: its folder cannot be made or written to; what was at `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile's: its files are readable by their owner alone, and reports are for others too.
    # Without the file's name, which may be as long as names can be.
    partial = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with partial.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
