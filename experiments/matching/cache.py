"""Keypoints of a list of photos kept on disk, so that they are detected once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.matching.keypoints import Detector, Keypoints

_FORMAT = 1


def cache_key(detector: Detector, image_side: int, paths: Sequence[Path]) -> str:
    """Hash everything the keypoints of `paths` depend on.

    That is the detector's name and parameters, the side the photos are resized to, and for each
    photo its absolute path, modification time and size. How a file is decoded is not part of it.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileNotFoundError: one of `paths` does not exist.
    """
    files = [
        (os.path.abspath(path), (status := os.stat(path)).st_mtime_ns, status.st_size)
        for path in paths
    ]
    made_of = [_FORMAT, detector.name, dict(detector.params), image_side, files]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def cache_file(directory: Path, detector: Detector, key: str) -> Path:
    """Return where the keypoints of `key` are kept in `directory`."""
    return directory / f"{detector.name}-{key[:16]}.npz"


def load_keypoints(file: Path, key: str, photos: int) -> list[Keypoints] | None:
    """Return the keypoints of that many photos stored in `file`, in the order of the key's paths.

    Returns:
        None if there is no such file, if it cannot be read, or if it was made for another key: a
        cache only ever saves time, so nothing about it is an error.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key or stored["counts"].shape != (photos,):
                return None
            return _unpack(
                stored["points"], stored["descriptors"], stored["counts"], stored["sizes"]
            )
    except Exception:  # zipfile, zlib and NumPy raise nearly anything on damaged bytes
        return None


def save_keypoints(file: Path, key: str, keypoints: Sequence[Keypoints]) -> None:
    """Store the keypoints of at least one photo in `file`, making its directory where needed.

    The file appears complete or not at all, also with several processes writing it.

    Raises:
        OSError: the directory cannot be made or written to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as temporary:
            np.savez(
                temporary,
                key=np.array(key),
                points=np.concatenate([photo.points for photo in keypoints]),
                descriptors=np.concatenate([photo.descriptors for photo in keypoints]),
                counts=np.array([len(photo) for photo in keypoints]),
                sizes=np.array([photo.size for photo in keypoints]),
            )
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _unpack(
    points: NDArray[np.float32],
    descriptors: NDArray[np.float32],
    counts: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> list[Keypoints]:
    ends = np.cumsum(counts)
    if ends[-1] != len(points):
        raise ValueError(f"{len(points)} keypoints are stored and {ends[-1]} were counted")
    split = zip(np.split(points, ends[:-1]), np.split(descriptors, ends[:-1]), sizes, strict=True)
    return [Keypoints(at, looks, (int(width), int(height))) for at, looks, (width, height) in split]
