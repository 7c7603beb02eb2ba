"""A file from the web: whole and checked, or not there."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import IO

import pooch

from experiments.checksum import sha256
from experiments.storage import write_atomically

logger = logging.getLogger(__name__)

# Without an answer for this long a server counts as unreachable.
_TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 18  # bytes


class DownloadError(OSError):
    """A file could not be fetched, or is not the one expected; the message says why."""


def fetch(url: str, file: Path, digits: str = "") -> None:
    """Download `url` to `file`; a download that was cut starts again.

    Args:
        url: address of the file, http or https.
        file: file to write; replaced only by a whole file that passes the check.
        digits: hexadecimal digits that the sha256 of the content must begin with.

    Raises:
        DownloadError: the server has no such file, cannot be reached, stays silent or closes the
            connection, the content has another hash, or the file cannot be written.
    """
    download = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=_CHUNK, timeout=_TIMEOUT_SECONDS
    )

    def receive(part: IO[bytes]) -> None:
        download(url, part, None)
        part.flush()
        found = sha256(Path(part.name))
        if not found.startswith(digits.lower()):
            raise DownloadError(
                f"what {url} gave has the sha256 {found}; expected one that begins with "
                f"{digits.lower()}: it is another file, or was changed on the way, and is not kept"
            )

    logger.info("downloading %s to %s", url, file)
    try:
        write_atomically(file, receive)
    except DownloadError:
        raise
    except OSError as error:  # every error of requests is one
        raise DownloadError(f"{url} could not be fetched to {file}: {error}") from error
