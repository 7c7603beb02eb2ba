"""Names of files made of names of photos or classes, which any file system takes."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata

_LONGEST = 143  # bytes; most file systems take 255, encrypted folders (eCryptfs) no more than this
_FOR_NUMBER = 8  # bytes of it kept for what tells equal names apart
# What Windows forbids, and bytes that are no text.
_FORBIDDEN = re.compile('[<>:"/\\\\|?*\x00-\x1f\x7f\ud800-\udfff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", re.IGNORECASE)


class FileNames:
    """Names for the files of one folder, each given once.

    Names differ in more than upper and lower case or composed and decomposed accents, which some
    file systems take for the same.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str, suffix: str) -> str:
        """Return `name` + `suffix`, changed where that is taken or no name for every system.

        A name that is changed gets a digest of what it was, so that it is the same in every run.
        """
        portable = _portable(name, _LONGEST - len(suffix.encode()) - _FOR_NUMBER)
        candidate, count = portable + suffix, 1
        while _identity(candidate) in self._taken:
            count += 1
            candidate = f"{portable}-{count}{suffix}"
        self._taken.add(_identity(candidate))
        return candidate


def _portable(name: str, longest: int) -> str:
    clean = _FORBIDDEN.sub("_", name)
    if _DEVICES.match(clean):
        clean = f"_{clean}"
    if clean == name and len(name.encode()) <= longest:
        return name
    digest = "-" + hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()
    cut = clean.encode()[: longest - len(digest)].decode(errors="ignore")
    return cut + digest


def _identity(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
