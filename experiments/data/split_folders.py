"""Which folders are splits: train, validation and test under the names that are usual for them."""

from __future__ import annotations

from pathlib import Path

from experiments.data.dataset import DataError
from experiments.data.names import printable
from experiments.data.photo_files import list_folder

LAYOUT = (
    "expected <root>/train/<class>/*.jpg and <root>/test/<class>/*.jpg (and perhaps "
    "<root>/validation/<class>/*.jpg), or <root>/<class>/*.jpg"
)
"""Of a folder of photos, a clause for messages."""

_TRAIN, _VALIDATION, _TEST = "train", "validation", "test"
_ROLES = {
    "train": _TRAIN,
    "validation": _VALIDATION,
    "val": _VALIDATION,
    "valid": _VALIDATION,
    "test": _TEST,
    "testing": _TEST,
}
# Without a train folder beside them these may as well be classes.
_AMBIGUOUS = frozenset({"valid", "testing"})


def find_split_folders(root: Path, *, training: bool = True) -> dict[str, Path]:
    """Return the folders of "train", "validation" and "test" in `root`; letter case is ignored.

    Args:
        root: the folder.
        training: whether a folder to train on has to be among them.

    Returns:
        Those that are there; nothing where no folder is a split.

    Raises:
        DataError: there are splits but none to train on, or two folders of one split.
    """
    found: dict[str, list[Path]] = {}
    for folder in list_folder(root).folders:
        role = _ROLES.get(folder.name.lower())
        if role is not None:
            found.setdefault(role, []).append(folder)
    if _TRAIN not in found:
        if training:
            _refuse_without_train(root, found)
            return {}
        found = {
            role: certain
            for role, folders in found.items()
            if (certain := [f for f in folders if f.name.lower() not in _AMBIGUOUS])
        }
    for role, folders in found.items():
        if len(folders) > 1:
            both = " and ".join(f"{folder.name}/" for folder in folders)
            raise DataError(f"{root} has both {both}, expected one {role} folder. Remove the other")
    return {role: folders[0] for role, folders in found.items()}


def _refuse_without_train(root: Path, found: dict[str, list[Path]]) -> None:
    names = [
        f'"{folder.name}"'
        for folders in found.values()
        for folder in folders
        if folder.name.lower() not in _AMBIGUOUS
    ]
    if names:
        raise DataError(
            f"{printable(root)} has {', '.join(sorted(names))} but no folder train: {LAYOUT}. "
            "Add or rename the folder"
        )
