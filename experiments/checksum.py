"""What a file's content is known by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

_THREADS = 8
_SHORT = partial(hashlib.blake2b, digest_size=16)


def sha256(file: Path) -> str:
    """Return the sha256 of a file's content, 64 hexadecimal digits.

    A file that is not changed is read once in the life of this process; it may be larger than
    memory.

    Raises:
        OSError: the file cannot be read.
    """
    return _digest(file, hashlib.sha256)


def content_digest(file: Path) -> str:
    """Return a fingerprint of a file's content, 32 hexadecimal digits; see `sha256`.

    Raises:
        OSError: the file cannot be read.
    """
    return _digest(file, _SHORT)


def content_digests(files: Iterable[Path]) -> list[str]:
    """Return the `content_digest` of each file, several read at a time.

    Raises:
        OSError: a file cannot be read.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(content_digest, files))


def _digest(file: Path, algorithm: Callable[[], Any]) -> str:
    s = file.stat()
    # The time of the last change of the inode cannot be set back, as that of the content can.
    status = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    return _digest_once(file, algorithm, status)


@cache
def _digest_once(file: Path, algorithm: Callable[[], Any], _status: tuple[int, ...]) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()
