"""Unpacking an archive that somebody else made: all of it, inside one folder, or nothing."""

from __future__ import annotations

import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

from experiments.data.dataset import DataError

_LISTED = 5  # members spelled out in one message

# tarfile.FilterError is a TarError; it came with the filters, in 3.10.12 and 3.11.4.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


class ArchiveError(DataError):
    """An archive is damaged, incomplete or unsafe; the message says what to do."""


def unpack(archive: Path, folder: Path, expected: Sequence[str] = ()) -> None:
    """Unpack a zip or tar archive (also gzip, bzip2 or xz) into `folder`.

    Everything is looked at before anything is written, and unpacked beside its place before it is
    moved there: an archive that is refused, or turns out to be damaged, changes nothing. Files of
    the same name are replaced, others stay.

    Args:
        archive: the file.
        folder: made if it is missing.
        expected: files, or folders with a trailing slash, that the archive must hold.

    Raises:
        ArchiveError: the file is no archive, or cut off, damaged or of a compression that Python
            cannot read; a member would be written outside `folder`, is a link out of it, a device,
            or encrypted; or one that is expected is missing.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _refuse(archive, _zip_problems(opened.infolist()))
                _check_expected(archive, opened.namelist(), expected)
                _extract(opened, folder)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                members = tar.getmembers()
                _read_to_end(tar)
                _refuse(archive, _tar_problems(members))
                _check_expected(archive, [member.name for member in members], expected)
                _extract(tar, folder)
        else:
            raise ArchiveError(_no_archive(archive))
    except NotImplementedError as error:
        raise ArchiveError(
            f"{archive} is compressed in a way that Python cannot read ({error}), as Windows does "
            f"with large files; nothing was unpacked: unpack it by hand into {folder}"
        ) from error
    except _DAMAGE as error:
        raise ArchiveError(
            f"{archive} is cut off or damaged ({error or type(error).__name__}); nothing was "
            "unpacked: delete it and download it again"
        ) from error


def _no_archive(archive: Path) -> str:
    size = archive.stat().st_size
    with archive.open("rb") as file:
        zipped = file.read(2) == b"PK"
    kind = "a zip archive whose end is missing" if zipped else "no zip or tar archive"
    return (
        f"{archive} ({size} bytes) is {kind}: its download was cut off, or brought something else; "
        "delete it and download it again"
    )


def _read_to_end(tar: tarfile.TarFile) -> None:
    """Read past the end mark of the tar: the checksum of a compressed one comes after it."""
    while tar.fileobj and tar.fileobj.read(1 << 20):
        pass


def _zip_problems(members: Iterable[zipfile.ZipInfo]) -> Iterable[str]:
    for member in members:
        if _leads_out(member.filename):
            yield f"{member.filename} leads out of the folder"
        elif stat.S_ISLNK(member.external_attr >> 16):
            yield f"{member.filename} is a link, which photos have no use for"
        elif member.flag_bits & 1:
            yield f"{member.filename} is encrypted"


def _tar_problems(members: Iterable[tarfile.TarInfo]) -> Iterable[str]:
    for member in members:
        if _leads_out(member.name):
            yield f"{member.name} leads out of the folder"
        elif member.issym() or member.islnk():
            base = posixpath.dirname(member.name) if member.issym() else ""
            target = posixpath.normpath(posixpath.join(base, member.linkname))
            if _leads_out(member.linkname, target):
                yield f"{member.name} is a link to {member.linkname}, out of the folder"
            elif not hasattr(tarfile, "data_filter"):
                yield f"{member.name} is a link, which this Python cannot unpack safely; update it"
        elif not (member.isfile() or member.isdir()):
            yield f"{member.name} is neither a file nor a folder"


def _leads_out(name: str, resolved: str | None = None) -> bool:
    """Whether a path is absolute, on any system, or `resolved` (by default itself) climbs out."""
    unified = name.replace("\\", "/")
    if unified.startswith("/") or PureWindowsPath(unified).drive:
        return True
    return ".." in (resolved or unified).split("/")


def _refuse(archive: Path, problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        more = ", ..." if len(found) > _LISTED else ""
        raise ArchiveError(
            f"{archive} is not safe to unpack and was left alone: {'; '.join(found[:_LISTED])}"
            f"{more}. Delete it, and get it from a source you trust"
        )


def _check_expected(archive: Path, names: Sequence[str], expected: Sequence[str]) -> None:
    held: set[str] = set()
    for name in map(posixpath.normpath, names):  # tar may begin them with "./"
        held |= {name, f"{name}/"}  # and names folders without a slash
        while (name := posixpath.dirname(name)) and f"{name}/" not in held:
            held.add(f"{name}/")
    missing = [name for name in expected if name not in held]
    if missing:
        more = ", ..." if len(missing) > _LISTED else ""
        raise ArchiveError(
            f"{archive} lacks {len(missing)} of {len(expected)} members that are expected "
            f"({', '.join(missing[:_LISTED])}{more}); it holds {len(names)}. It is another archive "
            "or not whole: delete it and download it again"
        )


def _extract(opened: zipfile.ZipFile | tarfile.TarFile, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as temporary:
        if isinstance(opened, tarfile.TarFile) and hasattr(tarfile, "data_filter"):
            opened.extractall(temporary, filter="data")
        else:
            opened.extractall(temporary)
        for entry in Path(temporary).iterdir():
            target = folder / entry.name
            if entry.is_dir():
                shutil.copytree(entry, target, copy_function=os.replace, dirs_exist_ok=True)
            else:
                entry.replace(target)
