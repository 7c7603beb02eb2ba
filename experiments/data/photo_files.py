"""The photos below a folder, and what is left out: the one place where that is decided."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from experiments.data.left_out import LeftOut, Why
from experiments.data.own_output import is_output_folder, is_own_picture
from experiments.data.system_files import is_system_file, is_system_folder
from lca_fused.photos.formats import content_suffix, readable_suffixes, why_not_read
from lca_fused.photos.reading import file_mode

MASK_END = ".mask.png"
"""What the name of a photo's mask ends in, in place of the photo's suffix: NAME.mask.png is beside
NAME.jpg."""


@dataclass(frozen=True)
class PhotoFiles:
    """What is in a folder.

    Attributes:
        photos: files that are photos by their name, or by their content where the name does not
            say; whether they can be decoded is not known yet. Masks beside photos are none.
        folders: folders that may hold photos; empty once they have been searched.
        left_out: everything else.
    """

    photos: tuple[Path, ...]
    folders: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def find_photos(folder: Path) -> PhotoFiles:
    """Search a folder and the folders below it, also linked ones, each once.

    Nothing but regular files is ever opened. What `folder` itself is called does not matter.

    Args:
        folder: where to look.

    Returns:
        The photos, sorted by path, and what is left out.
    """
    photos: list[Path] = []
    left_out: list[LeftOut] = []
    waiting, links, seen = [folder], list[Path](), set[str]()
    while waiting or links:
        # Links last: a folder that is also there itself is known by its own path.
        current = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(current)
        if real in seen:
            left_out.append(LeftOut(current, Why.LINK))
            continue
        seen.add(real)
        here = list_folder(current)
        photos += here.photos
        left_out += here.left_out
        for below in here.folders:
            (links if below.is_symlink() else waiting).append(below)
    return PhotoFiles(
        tuple(sorted(photos, key=Path.as_posix)),
        (),
        tuple(sorted(left_out, key=lambda item: item.path.as_posix())),
    )


def mask_beside(photo: Path) -> Path | None:
    """Return the file that says where the product is in a photo, or None where there is none."""
    mask = photo.with_name(photo.stem + MASK_END)
    return mask if mask.is_file() else None


def list_folder(folder: Path) -> PhotoFiles:
    """Look at what is directly in a folder, sorted by name."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return PhotoFiles((), (), (LeftOut(folder, Why.UNREADABLE, reason),))
    photos, masks, folders = list[Path](), list[Path](), list[Path]()
    left_out: list[LeftOut] = []
    for path in entries:
        mode = file_mode(path)
        reason_left_out = _why_left_out(path, mode)
        if reason_left_out is not None:
            left_out.append(reason_left_out)
        elif stat.S_ISDIR(mode):
            folders.append(path)
        elif path.name.endswith(MASK_END):
            masks.append(path)
        else:
            photos.append(path)
    stems = {photo.stem for photo in photos}
    left_out += [
        LeftOut(mask, Why.MASK) for mask in masks if mask.name.removesuffix(MASK_END) not in stems
    ]
    return PhotoFiles(tuple(photos), tuple(folders), tuple(left_out))


def _why_left_out(path: Path, mode: int) -> LeftOut | None:
    if stat.S_ISDIR(mode):
        return _why_folder_left_out(path)
    if is_system_file(path.name):
        return LeftOut(path, Why.SYSTEM)
    if not stat.S_ISREG(mode):
        return _why_no_file(path, mode)
    suffix: str | None = path.suffix.lower()
    if suffix not in readable_suffixes() and why_not_read(path.suffix.lower()) is None:
        suffix = content_suffix(path)
    if suffix is None:
        return LeftOut(path, Why.OTHER)
    advice = why_not_read(suffix)
    if advice is not None:
        return LeftOut(path, Why.FORMAT, advice)
    return LeftOut(path, Why.OUTPUT) if is_own_picture(path) else None


def _why_folder_left_out(path: Path) -> LeftOut | None:
    if is_system_folder(path.name):
        return LeftOut(path, Why.SYSTEM)
    if is_output_folder(path):
        return LeftOut(path, Why.OUTPUT)
    if path.is_symlink() and _leads_up(path):
        return LeftOut(path, Why.LINK)
    return None


def _why_no_file(path: Path, mode: int) -> LeftOut:
    if mode:
        return LeftOut(path, Why.NOT_A_FILE)
    if path.is_symlink():
        return LeftOut(path, Why.BROKEN_LINK)
    return LeftOut(path, Why.UNREADABLE, "it cannot be looked at")


def _leads_up(link: Path) -> bool:
    """Return whether a link leads to a folder that it is in itself."""
    inside, target = os.path.realpath(link.parent), os.path.realpath(link)
    return inside == target or inside.startswith(target.rstrip(os.sep) + os.sep)
