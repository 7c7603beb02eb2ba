"""Fetching GroZi-120 from its home."""

from __future__ import annotations

from pathlib import Path

from experiments.data.archives import unpack
from experiments.data.download import fetch, record_sha256, recorded_sha256
from experiments.data.grozi_files import HOME, IN_SITU, IN_VITRO, PRODUCTS

_ARCHIVES = "https://grozi.calit2.net/GroZi-120"


def download_grozi(root: Path) -> None:
    """Fetch both archives into root/grozi-120 and unpack them there.

    No checksum of them is published: the one first seen is written beside each archive, and later
    downloads must have it. An archive that is already there is unpacked, not fetched.

    Raises:
        DataError: an archive cannot be fetched or unpacked; the message says what to do.
    """
    folder = root / "grozi-120"
    for part in (IN_VITRO, IN_SITU):
        archive = folder / f"{part}.zip"
        if not archive.exists():
            fetch(
                f"{_ARCHIVES}/{archive.name}",
                archive,
                sha256=recorded_sha256(archive),
                by_hand=f"get {archive.name} from {HOME}, put it into {folder}, run this again",
            )
        unpack(archive, folder, expected=[f"{part}/{product}/" for product in PRODUCTS])
        if recorded_sha256(archive) is None:
            record_sha256(archive)
