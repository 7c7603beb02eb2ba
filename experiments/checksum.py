"""What a file's content is known by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20  # bytes
_THREADS = 8


def sha256(file: Path) -> str:
    """Return the sha256 of a file's content, 64 hexadecimal digits; it may be larger than memory.

    Raises:
        OSError: the file cannot be read.
    """
    return _hashed(file, hashlib.sha256())


def content_digest(file: Path) -> str:
    """Return a fingerprint of a file's content, 32 hexadecimal digits.

    A file that is not changed is read once in the life of this process.

    Raises:
        OSError: the file cannot be read.
    """
    status = file.stat()
    # The time of the last change of the inode cannot be set back, as that of the content can.
    return _content_digest(
        file, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def content_digests(files: Iterable[Path]) -> list[str]:
    """Return the `content_digest` of each file, several read at a time.

    Raises:
        OSError: a file cannot be read.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(content_digest, files))


@cache
def _content_digest(file: Path, *_status: int) -> str:
    return _hashed(file, hashlib.blake2b(digest_size=16))


def _hashed(file: Path, digest: Any) -> str:
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
