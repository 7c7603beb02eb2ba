"""Keypoints of photos kept on disk, so that they are detected once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.checksum import content_digests
from experiments.matching.keypoints import Detector, Keypoints
from experiments.storage import write_atomically

_FORMAT = 2
_PHOTOS_PER_FILE = 32  # what an aborted run detects again is at most that many


@dataclass(frozen=True)
class KeypointCache:
    """Keypoints of one detector, stored as soon as they are detected.

    Attributes:
        directory: folder that keypoints are kept in between runs.
        detector: detector that finds them; a stored file belongs to one detector.
        image_side: side in pixels that photos are resized to; a stored file belongs to one side.
    """

    directory: Path
    detector: Detector
    image_side: int

    def keypoints(
        self,
        paths: Sequence[Path],
        images: Iterator[NDArray[np.uint8]],
        detect: Callable[[Iterable[NDArray[np.uint8]]], Iterable[Keypoints]],
    ) -> list[Keypoints]:
        """Return the keypoints of every photo.

        Args:
            paths: files of the photos.
            images: the photos in them; read no further than the last that is not stored.
            detect: function that finds the keypoints of a few photos; called for those that are not
                stored.

        Raises:
            ValueError: there are fewer `images` than `paths`, or more.
            FileNotFoundError: one of `paths` does not exist.
            OSError: the directory cannot be made or written to.
        """
        keypoints: list[Keypoints] = []
        read = 0
        for start in range(0, len(paths), _PHOTOS_PER_FILE):
            chunk = paths[start : start + _PHOTOS_PER_FILE]
            key = cache_key(self.detector, self.image_side, chunk)
            file = cache_file(self.directory, self.detector, key)
            stored = load_keypoints(file, key, len(chunk))
            if stored is None:
                end = start + len(chunk)
                stored = list(detect(islice(images, start - read, end - read)))
                read = end
                if len(stored) < len(chunk):
                    raise ValueError(f"images are shorter than the {len(paths)} paths")
                save_keypoints(file, key, stored)
            keypoints += stored
        if read == len(paths) and next(images, None) is not None:
            raise ValueError(f"images are longer than the {len(paths)} paths")
        return keypoints


def cache_key(detector: Detector, image_side: int, paths: Sequence[Path]) -> str:
    """Hash everything the keypoints of `paths` depend on.

    That is the detector's name and parameters, the side the photos are resized to, and the content
    of each photo, wherever it is. How a file is decoded is not part of it.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileNotFoundError: one of `paths` does not exist.
    """
    contents = content_digests(paths)
    made_of = [_FORMAT, detector.name, dict(detector.params), image_side, contents]
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
    arrays: dict[str, Any] = {
        "key": np.array(key),
        "points": np.concatenate([photo.points for photo in keypoints]),
        "descriptors": np.concatenate([photo.descriptors for photo in keypoints]),
        "counts": np.array([len(photo) for photo in keypoints]),
        "sizes": np.array([photo.size for photo in keypoints]),
    }
    write_atomically(file, lambda opened: np.savez(opened, **arrays))


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
