"""A folder of class folders: which photos of which class are in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from experiments.data.left_out import LeftOut, Why, describe
from experiments.data.names import class_name, printable
from experiments.data.photo_files import find_photos, list_folder


@dataclass(frozen=True)
class ClassFolders:
    """The class folders in one folder.

    Attributes:
        folder: folder that the class folders are in.
        photos: photos of each class, sorted by path; classes are sorted by name.
        spellings: names that the folders of each class have on the disk.
        loose: photos beside the class folders.
        left_out: files and folders that are not read, and why.
    """

    folder: Path
    photos: dict[str, tuple[Path, ...]]
    spellings: dict[str, tuple[str, ...]]
    loose: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def empty(self) -> list[str]:
        """Classes without photos, each with what is in its folders instead."""
        return [self._in_words(name) for name, photos in self.photos.items() if not photos]

    def _in_words(self, name: str) -> str:
        folders = {self.folder / spelling for spelling in self.spellings[name]}
        inside = [item for item in self.left_out if folders & {item.path, *item.path.parents}]
        lines = describe(inside, self.folder)
        return f'"{name}"' + (f" ({'; '.join(lines)})" if lines else "")


def read_class_folders(folder: Path) -> ClassFolders:
    """Find the photos below each folder in `folder`; folders of one name, composed, are one class.

    A folder with results of ours somewhere below and no photos is no class.

    Args:
        folder: folder that the class folders are in.
    """
    here = list_folder(folder)
    left_out = list(here.left_out)
    photos: dict[str, list[Path]] = defaultdict(list)
    spellings: dict[str, list[str]] = defaultdict(list)
    for path in here.folders:
        found = find_photos(path)
        if not found.photos and any(item.why is Why.OUTPUT for item in found.left_out):
            left_out.append(LeftOut(path, Why.OUTPUT))
            continue
        photos[class_name(path)] += found.photos
        spellings[class_name(path)].append(path.name)
        left_out += found.left_out
    names = sorted(photos)
    return ClassFolders(
        folder=folder,
        photos={name: tuple(photos[name]) for name in names},
        spellings={name: tuple(spellings[name]) for name in names},
        loose=here.photos,
        left_out=tuple(left_out),
    )


def describe_names(parts: Iterable[ClassFolders]) -> list[str]:
    """Return a note for class names in several spellings, and one for names that are no text."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for part in parts:
        for name, spelled in part.spellings.items():
            spellings[name].update(spelled)
    several = [name for name, spelled in spellings.items() if len(spelled) > 1]
    undecodable = [
        name for name, spelled in spellings.items() if any(printable(raw) != raw for raw in spelled)
    ]
    notes = []
    if several:
        notes.append(
            f"{len(several)} class names are spelled in composed and in decomposed characters, "
            f"which look the same; they count as one class each: {', '.join(several)}."
        )
    if undecodable:
        notes.append(
            f"{len(undecodable)} class folders have names that are no UTF-8; the classes are "
            f"called: {', '.join(undecodable)}."
        )
    return notes
