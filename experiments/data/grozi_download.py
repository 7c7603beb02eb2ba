"""Fetching GroZi-120 from its home."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

from experiments.checksum import sha256
from experiments.data.dataset import DataError
from experiments.data.grozi_files import HOME, IN_SITU, IN_VITRO
from experiments.download import DownloadError, fetch
from experiments.storage import save_text

_ARCHIVES = "https://grozi.calit2.net/GroZi-120"


def download_grozi(root: Path) -> None:
    """Fetch both archives into root/grozi-120 and unpack them there.

    No checksum of them is published: the one first seen is written beside each archive, as
    sha256sum does, and later downloads must have it. An archive that is already there is unpacked,
    not fetched.

    Raises:
        DataError: an archive cannot be fetched or unpacked; the message says what to do.
        OSError: a file cannot be written.
    """
    folder = root / "grozi-120"
    for part in (IN_VITRO, IN_SITU):
        archive = folder / f"{part}.zip"
        record = folder / f"{archive.name}.sha256"
        digits = record.read_text("utf-8").partition(" ")[0] if record.exists() else ""
        if not archive.exists():
            try:
                fetch(f"{_ARCHIVES}/{archive.name}", archive, digits)
            except DownloadError as error:
                raise DataError(
                    f"{error}; run this again, or get {archive.name} from {HOME}, put it into "
                    f"{folder} and run this again"
                ) from error
        _unpack(archive, folder)
        if not digits:
            save_text(f"{sha256(archive)}  {archive.name}\n", record)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into `folder`: all of it, or nothing.

    Names that lead out of the folder are cut to what stays inside, and links become files (by
    zipfile). Files of the same name are replaced, others stay.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
            unpacked = Path(temporary, "unpacked")  # of the usual mode, which copytree passes on
            unpacked.mkdir()
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(unpacked)
            shutil.copytree(unpacked, folder, copy_function=os.replace, dirs_exist_ok=True)
    # Of damage, and of encryption or a compression that Python cannot read.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(
            f"{archive} ({archive.stat().st_size} bytes) cannot be unpacked ({error}), and nothing "
            f"was: delete it and run this again, or unpack it by hand into {folder}"
        ) from error
