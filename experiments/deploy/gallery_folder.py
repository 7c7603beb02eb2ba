"""A gallery's folder: the photos it keeps beside its vectors, and who may change it."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.outputs import make_folder
from experiments.storage import write_atomically
from lca_fused.gallery import Gallery
from lca_fused.photos.reading import read_image

try:
    import fcntl
except ImportError:  # Windows, where two at a time are the user's to avoid
    fcntl = None  # type: ignore[assignment]

PHOTOS = "photos"
"""Folder in a gallery's with a copy of each enrolled photo, as the network saw it."""

_QUALITY = 95
_PARTIAL = re.compile(r"\.([0-9a-f]{32}|.+\.(safetensors|json)\.\d+)\.tmp")


class BusyError(ValueError):
    """Another process is changing the gallery."""


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Make a gallery's folder if needed, and let no other process change it meanwhile.

    A process that is killed lets go. A folder in which nothing was written is removed again.

    Raises:
        BusyError: another process is changing it.
        OutputError: it cannot be made or written to.
    """
    made = not folder.exists()
    make_folder(folder, "GALLERY")
    lock = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if fcntl and lock is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(
                    f"another process is changing {folder}; run this again once it is done"
                ) from error
        yield
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()
        if lock is not None:
            os.close(lock)


def gallery_photos(model: str) -> Path | None:
    """Return the folder of a model if photos of a gallery are in it, or else None."""
    return Path(model) if (Path(model) / PHOTOS).is_dir() else None


def save_photo(folder: Path, photo: Tensor) -> str:
    """Write a photo as the network saw it, (S, S, 3) uint8; return its name in a gallery.

    The name is made of what is in it: one that is there already is the same.
    """
    file = io.BytesIO()
    Image.fromarray(photo.numpy()).save(file, format="JPEG", quality=_QUALITY, subsampling=0)
    name = hashlib.blake2b(file.getvalue(), digest_size=12).hexdigest() + ".jpg"
    if not (folder / PHOTOS / name).exists():
        write_atomically(folder / PHOTOS / name, lambda out: out.write(file.getvalue()))
    return name


def read_photo(folder: Path, name: str) -> Tensor:
    """Return a photo of a gallery, (S, S, 3) uint8.

    Raises:
        ImageError: it is not there or cannot be read.
    """
    pixels = np.array(read_image(folder / PHOTOS / name))
    return torch.from_numpy(pixels)


def sweep(folder: Path, gallery: Gallery) -> None:
    """Remove the photos that no vector is of any more, and what killed processes left half done."""
    kept = set(gallery.photos)
    for path in (folder / PHOTOS).glob("*.jpg"):
        if path.name not in kept:
            path.unlink(missing_ok=True)
    for path in (*folder.glob(".*.tmp"), *(folder / PHOTOS).glob(".*.tmp")):
        if _PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)
