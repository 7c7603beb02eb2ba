"""A file from the web: resumed where it was cut off, and kept only if it is the right one."""

from __future__ import annotations

import logging
import re
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from experiments import checksum
from experiments.data.dataset import DataError
from experiments.storage import save_text

logger = logging.getLogger(__name__)

# Without an answer for this long a server counts as unreachable.
_TIMEOUT_SECONDS = 30.0
_ATTEMPTS = 5  # connections, as long as each brings some bytes
_CHUNK = 1 << 18  # bytes
_AGENT = "lca-fused-experiments"


class DownloadError(DataError):
    """A file could not be fetched, or is not the one expected; the message says what to do."""


class _CutOffError(OSError):
    """The connection ended before the file did."""


def fetch(
    url: str,
    file: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    by_hand: str | None = None,
) -> None:
    """Download `url` to `file`.

    Until it is whole and checked it is kept as `<file>.part`; what an earlier call left there is
    continued, where the server can (a server that ignores Range starts again). A connection that
    is cut is opened again, unless nothing came through it. That the file changed on the server in
    between shows in its hash alone.

    Args:
        url: http or https.
        file: replaced only by a whole file that passes the checks.
        sha256: 64 hex digits that the content must have; None where they are not known.
        size: bytes that the content must have; None where they are not known.
        by_hand: what the user can do where the file cannot be fetched, a clause for the message.

    Raises:
        DownloadError: the server has no such file, cannot be reached, stays silent, or closes the
            connection too often (what was fetched is kept and continued by the next call); or the
            content has another size or hash (it is removed).
        OSError: the file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"the address is {url}; expected one with http:// or https://")
    by_hand = by_hand or f"download it by hand to {file}"
    part = file.with_name(f"{file.name}.part")
    file.parent.mkdir(parents=True, exist_ok=True)
    _receive_all(url, part, by_hand)
    _check(url, part, sha256, size, by_hand)
    part.replace(file)


def recorded_sha256(file: Path) -> str | None:
    """Return the hash that `record_sha256` wrote beside `file`, or None.

    Raises:
        DownloadError: the record is not of its format.
    """
    record = _record(file)
    if not record.exists():
        return None
    digits = record.read_text(encoding="utf-8").split()[:1]
    if not digits or not re.fullmatch("[0-9a-f]{64}", digits[0]):
        raise DownloadError(
            f"{record} does not begin with the 64 hex digits of a sha256; remove it to accept the "
            "file as it is fetched next"
        )
    return digits[0]


def record_sha256(file: Path) -> None:
    """Write the hash of `file` to `<file>.sha256`, in the format of sha256sum.

    Where nobody publishes a hash, the one that was seen first tells later downloads apart from it.
    """
    save_text(f"{checksum.sha256(file)}  {file.name}\n", _record(file))


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _receive_all(url: str, part: Path, by_hand: str) -> None:
    reason = ""
    for _ in range(_ATTEMPTS):
        before = _size(part)
        try:
            _receive(url, part)
            return
        except HTTPError as error:
            raise DownloadError(
                f"the server answers {error.code} {error.reason} for {url}; it may have moved or "
                f"be gone: {by_hand}"
            ) from error
        except (_CutOffError, URLError, TimeoutError, ConnectionError, HTTPException) as error:
            reason = _describe(error)
            if _size(part) <= before:
                break
            logger.info("%s: %s; going on from there", url, reason)
    kept = f"{_size(part)} bytes are kept in {part}: " if part.exists() else ""
    raise DownloadError(
        f"{url} could not be fetched: {reason}; {kept}run this again to go on, or {by_hand}"
    )


def _receive(url: str, part: Path) -> None:
    """Append what is missing of `url` to `part`; raises _CutOffError if some still is."""
    start = _size(part)
    headers = {"User-Agent": _AGENT} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code != 416 or not start:
            raise
        # Nothing lies beyond the bytes that are there: they are all of it, or of another file.
        if _total(error.headers.get("Content-Range")) != start:
            part.unlink()
            _receive(url, part)
        return
    with response:
        if not _continues(response, start):
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _append(response, part, start, total)
    if total is not None and _size(part) < total:
        raise _CutOffError(f"the connection was cut after {_size(part)} of {total} bytes")


def _append(response: HTTPResponse, part: Path, start: int, total: int | None) -> None:
    with (
        part.open("ab" if start else "wb") as file,
        tqdm(
            initial=start, total=total, unit="B", unit_scale=True, desc=part.stem, disable=None
        ) as bar,
    ):
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _continues(response: HTTPResponse, start: int) -> bool:
    """Whether the response goes on at byte `start`, rather than from the beginning."""
    first = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    if response.status != 206:
        return False
    if first is None or int(first[1]) != start:
        raise _CutOffError("the server answered with another part of the file than was asked for")
    return True


def _total(content_range: str | None) -> int | None:
    total = re.search(r"/(\d+)$", content_range or "")
    return int(total[1]) if total else None


def _check(url: str, part: Path, sha256: str | None, size: int | None, by_hand: str) -> None:
    problem = None
    if size is not None and _size(part) != size:
        problem = f"has {_size(part)} bytes, expected {size}"
    elif sha256 is not None and (found := checksum.sha256(part)) != sha256.lower():
        problem = f"has the sha256 {found}, expected {sha256.lower()}"
    if problem:
        part.unlink()
        raise DownloadError(
            f"what {url} gave {problem}: it is another file, or was changed on the way, and has "
            f"been removed; run this again, or {by_hand}"
        )


def _describe(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f"the server said nothing for {_TIMEOUT_SECONDS:g} seconds"
    return str(reason) or type(reason).__name__


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
