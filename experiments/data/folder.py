"""A data set of one's own: one folder of photos per product."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.data.class_folders import ClassFolders, describe_names, read_class_folders
from experiments.data.copies import find_copies
from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.data.left_out import LeftOut, describe
from experiments.data.names import printable
from experiments.data.photo_files import list_folder
from experiments.data.source import CatalogEntry, Source
from experiments.data.split_folders import LAYOUT, find_split_folders
from experiments.data.splits import stratified_holdout

logger = logging.getLogger(__name__)

FEW = 5
"""Training photos of a class, below which it has few to learn from."""

_EPOCH_SAMPLES = 300
_MAX_REPEATS = 16
_FORMATS = "jpg, png, webp, tiff, gif, avif or another format that Pillow reads"


@dataclass(frozen=True)
class Layout:
    """What is below a folder of photos, whether or not it can be trained on.

    Attributes:
        root: the folder.
        folders: folder of each split that has one; none where no folder is a split.
        parts: class folders of each of these splits; where there is none, those in `root`, as
            "train".
    """

    root: Path
    folders: Mapping[str, Path]
    parts: Mapping[str, ClassFolders]

    @property
    def left_out(self) -> list[LeftOut]:
        """Files and folders that are not read."""
        of_parts = [item for part in self.parts.values() for item in part.left_out]
        return list(dict.fromkeys([*list_folder(self.root).left_out, *of_parts]))

    @property
    def strays(self) -> list[str]:
        """A sentence on photos beside class folders, and one on folders beside splits."""
        ignored = _ignored_folders(self.root, self.folders.values()) if self.folders else []
        return [*_loose_photos(self.parts.values()), *ignored]


def load_folder(
    root: str | Path,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    train_repeats: int | None = None,
    quiet: bool = False,
) -> ProductDataset:
    """Read a data set from folders, one per class; a class folder may hold folders of its own.

    With root/train/<class> and root/test/<class> (or testing) these are the splits, and
    root/validation (or val, valid) is too where there is one. With root/<class> the test photos
    are split off as well. A split that has no folder is a stratified holdout; copies of a photo,
    byte for byte, are on one side of it.

    What is left out (see `experiments.data.photo_files`) is counted in the data set's notes.

    Args:
        root: the folder.
        validation_fraction: share of the training photos held out for validation where there is no
            validation folder, in [0, 1).
        test_fraction: share of all photos held out for the test where there is no train folder.
        seed: of the holdouts.
        train_repeats: how often a training photo is drawn in an epoch; None for as often as it
            takes to have 300 samples in an epoch, at most 16 times.
        quiet: log nothing, as it was said before.

    Returns:
        The data set, named "folder/<name of root>", its classes sorted by name.

    Raises:
        DataError: `root` is missing or a file, has fewer than 2 classes, a class without photos, no
            test photos, or test or validation photos of a class that is not trained on; or an
            argument is out of its range. The message says which, and what to do.
    """
    root = Path(root)
    if train_repeats is not None and train_repeats < 1:
        raise DataError(f"train_repeats is {train_repeats}, expected at least 1, or None to choose")
    layout = read_layout(root)
    folders, parts = layout.folders, layout.parts
    classes, given = samples_of(layout)
    copies = find_copies(sample.path for samples in given.values() for sample in samples)
    train, test = given["train"], given.get("test", ())
    log = layout.strays
    if not folders:
        train, test = stratified_holdout(train, test_fraction, seed, copies=copies)
        log.append(_split_off(root, len(train), len(test), test_fraction, seed))
    validation = given.get("validation")
    if validation is None:
        train, validation = stratified_holdout(train, validation_fraction, seed, copies=copies)
    notes = [*describe(layout.left_out, root), *describe_names(parts.values())]
    if not quiet:
        for line in (*log, *_untested(classes, test), *notes):
            logger.warning("%s", line)
    return ProductDataset(
        name=f"folder/{printable(root.resolve().name)}",
        classes=classes,
        train=train,
        validation=validation,
        test=test,
        train_repeats=train_repeats or _repeats(len(train)),
        notes=tuple(notes),
    )


def read_layout(root: Path) -> Layout:
    """Find the splits, the class folders and the photos below a folder.

    Raises:
        DataError: `root` is missing or a file, or its folders of splits contradict each other.
    """
    _check_root(root)
    folders = find_split_folders(root)
    parts = {role: read_class_folders(folder) for role, folder in folders.items()}
    return Layout(root, folders, parts or {"train": read_class_folders(root)})


def samples_of(layout: Layout) -> tuple[tuple[str, ...], dict[str, tuple[Sample, ...]]]:
    """Return the classes and the photos of each split that has a folder.

    Raises:
        DataError: see `load_folder`; whether a test set can be split off is not looked at.
    """
    classes = _classes(layout.parts["train"])
    given = {role: _samples(part, classes) for role, part in layout.parts.items()}
    if layout.folders:
        _check_splits(layout.root, layout.folders, given)
    return classes, given


def few_photos(counts: Mapping[str, int]) -> list[str]:
    """Return the classes that have photos, but fewer than `FEW`, each with how many."""
    return [f"{name}: {count}" for name, count in counts.items() if 0 < count < FEW]


def _check_root(root: Path) -> None:
    if not root.exists():
        raise DataError(f"no folder {root}: {LAYOUT}. Check the path")
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder: {LAYOUT}. Pass the folder")


def _check_splits(
    root: Path, folders: Mapping[str, Path], given: Mapping[str, Sequence[Sample]]
) -> None:
    if "test" not in folders:
        raise DataError(
            f"no test photos: {folders['train']} is there, {root / 'test'} is not. Put photos into "
            f"{root / 'test'}/<class>/, or move the class folders from {folders['train'].name}/ to "
            f"{root} to have a test set split off"
        )
    if not given["test"]:
        raise DataError(
            f"no test photos: no class folder in {folders['test']} holds an image ({_FORMATS}). "
            f"Put photos into {folders['test']}/<class>/"
        )
    if "validation" in given and not given["validation"]:
        folder = folders["validation"]
        raise DataError(
            f"no class folder in {folder} holds an image ({_FORMATS}). Put photos into "
            f"{folder}/<class>/, or remove {folder} to hold out training photos instead"
        )


def _classes(part: ClassFolders) -> tuple[str, ...]:
    """Names of the class folders, sorted; each holds a photo and there are at least 2."""
    if not part.photos:
        inside = "; ".join(describe(part.left_out, part.folder))
        raise DataError(
            f"no classes: {part.folder} has no folders in it; {LAYOUT}. Make one per class"
            + (f" ({inside})" if inside else "")
        )
    empty = part.empty
    if empty:
        raise DataError(
            f"{len(empty)} of {len(part.photos)} class folders in {part.folder} hold no image "
            f"({_FORMATS}): {', '.join(empty)}. Add photos to them, or remove them"
        )
    if len(part.photos) < 2:
        raise DataError(
            f"only one class, {_names(part.photos)}, in {part.folder}: expected at least 2 to "
            "tell apart. Add a folder for each further product"
        )
    return tuple(part.photos)


def _samples(part: ClassFolders, classes: Sequence[str]) -> tuple[Sample, ...]:
    """Photos below the class folders of one split, sorted by class and path."""
    labels = {name: label for label, name in enumerate(classes)}
    unknown = [name for name, paths in part.photos.items() if paths and name not in labels]
    if unknown:
        raise DataError(
            f"{part.folder} has photos of {len(unknown)} classes that are not trained on: "
            f"{_names(unknown)}. Add their folders to {part.folder.parent / 'train'}, or remove "
            "them (the names have to be the same in every split)"
        )
    return tuple(
        Sample(path, labels[name]) for name, paths in part.photos.items() for path in paths
    )


def _split_off(root: Path, train: int, test: int, test_fraction: float, seed: int) -> str:
    """Return what is said of a test set that has no folder; raises DataError if it is empty."""
    if not test:
        raise DataError(
            f"no test photos: none could be split off {root} with test_fraction={test_fraction}, "
            "as it is 0 or no class has two photos. Add photos, or raise the fraction"
        )
    return (
        f"{root} has no train folder: {test} of its {train + test} photos "
        f"(test_fraction={test_fraction:g}, seed={seed}) are split off as the test set"
    )


def _repeats(train: int) -> int:
    return min(math.ceil(_EPOCH_SAMPLES / train), _MAX_REPEATS)


def _ignored_folders(root: Path, splits: Iterable[Path]) -> list[str]:
    ignored = [path.name for path in list_folder(root).folders if path not in set(splits)]
    return [f"{root}: not a split, left out: {_names(ignored)}"] if ignored else []


def _loose_photos(parts: Iterable[ClassFolders]) -> list[str]:
    return [
        f"{part.folder}: {len(part.loose)} photos in no class folder, left out"
        for part in parts
        if part.loose
    ]


def _untested(classes: Sequence[str], test: Iterable[Sample]) -> list[str]:
    tested = {sample.label for sample in test}
    names = [name for label, name in enumerate(classes) if label not in tested]
    return [f"{len(names)} classes have no test photos: {_names(names)}"] if names else []


def _names(names: Iterable[str]) -> str:
    return ", ".join(f'"{printable(name)}"' for name in names)


FOLDER = Source(
    name="folder",
    datasets={"folder": CatalogEntry(lambda options: load_folder(options.required_root()))},
    home="photos of your own, a folder per product",
)
"""As the catalog knows it."""
