"""A data set of one's own: one folder of photos a product."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path

from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.data.images import IMAGE_EXTENSIONS, find_images
from experiments.data.source import CatalogEntry, Source
from experiments.data.splits import stratified_holdout

logger = logging.getLogger(__name__)

_EPOCH_SAMPLES = 300
_MAX_REPEATS = 16
_VALIDATION_NAMES = ("validation", "val")
_SPLIT_NAMES = frozenset({"train", "test", *_VALIDATION_NAMES})
_LAYOUT = (
    "expected <root>/train/<class>/*.jpg and <root>/test/<class>/*.jpg (and perhaps "
    "<root>/validation/<class>/*.jpg), or <root>/<class>/*.jpg"
)


def load_folder(
    root: str | Path,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    train_repeats: int | None = None,
) -> ProductDataset:
    """Read a data set from folders, one a class; a class folder may hold folders of its own.

    With root/train/<class> and root/test/<class> these are the splits, and root/validation (or
    root/val) is too where there is one. With root/<class> the test photos are split off as well. A
    split that has no folder is a stratified holdout.

    Args:
        root: the folder.
        validation_fraction: share of the training photos held out for validation where there is no
            validation folder, in [0, 1).
        test_fraction: share of all photos held out for the test where there is no train folder.
        seed: of the holdouts.
        train_repeats: how often a training photo is drawn in an epoch; None for as often as it
            takes to have 300 samples in an epoch, at most 16 times.

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
    _check_root(root)
    if (root / "train").is_dir():
        classes, train, validation, test = _load_splits(root)
    else:
        classes, train, test = _load_unsplit(root, test_fraction, seed)
        validation = None
    if validation is None:
        train, validation = stratified_holdout(train, validation_fraction, seed)
    _log_untested(classes, test)
    return ProductDataset(
        name=f"folder/{root.resolve().name}",
        classes=classes,
        train=train,
        validation=validation,
        test=test,
        train_repeats=train_repeats or _repeats(len(train)),
    )


def _check_root(root: Path) -> None:
    if not root.exists():
        raise DataError(f"no folder {root}: {_LAYOUT}. Check the path")
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder: {_LAYOUT}. Pass the folder")


def _load_splits(
    root: Path,
) -> tuple[tuple[str, ...], tuple[Sample, ...], tuple[Sample, ...] | None, tuple[Sample, ...]]:
    classes = _classes(root / "train")
    train = _samples(root / "train", classes)
    if not (root / "test").is_dir():
        raise DataError(
            f"no test photos: {root / 'train'} is there, {root / 'test'} is not. Put photos into "
            f"{root / 'test'}/<class>/, or move the class folders from train/ to {root} to have a "
            "test set split off"
        )
    test = _samples(root / "test", classes)
    if not test:
        raise DataError(
            f"no test photos: no class folder in {root / 'test'} holds an image "
            f"({_extensions()}). Put photos into {root / 'test'}/<class>/"
        )
    _log_ignored_folders(root)
    return classes, train, _load_validation(root, classes), test


def _load_validation(root: Path, classes: tuple[str, ...]) -> tuple[Sample, ...] | None:
    folders = [root / name for name in _VALIDATION_NAMES if (root / name).is_dir()]
    if not folders:
        return None
    if len(folders) > 1:
        raise DataError(f"{root} has both validation/ and val/, expected one. Remove the other")
    validation = _samples(folders[0], classes)
    if not validation:
        raise DataError(
            f"no class folder in {folders[0]} holds an image ({_extensions()}). Put photos into "
            f"{folders[0]}/<class>/, or remove {folders[0]} to hold out training photos instead"
        )
    return validation


def _load_unsplit(
    root: Path, test_fraction: float, seed: int
) -> tuple[tuple[str, ...], tuple[Sample, ...], tuple[Sample, ...]]:
    splits = [folder.name for folder in _subfolders(root) if folder.name.lower() in _SPLIT_NAMES]
    if splits:
        raise DataError(
            f"{root} has {_names(splits)} but no folder train (in lower case): {_LAYOUT}. Add or "
            "rename the folder"
        )
    classes = _classes(root)
    train, test = stratified_holdout(_samples(root, classes), test_fraction, seed)
    if not test:
        raise DataError(
            f"no test photos: none could be split off {root} with test_fraction={test_fraction}, "
            "as it is 0 or no class has two photos. Add photos, or raise the fraction"
        )
    logger.warning(
        "%s has no train folder: %d of its %d photos (test_fraction=%g, seed=%d) are split off "
        "as the test set",
        root,
        len(test),
        len(train) + len(test),
        test_fraction,
        seed,
    )
    return classes, train, test


def _classes(folder: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted; each holds a photo and there are at least 2."""
    subfolders = _subfolders(folder)
    if not subfolders:
        raise DataError(f"no classes: {folder} has no folders in it; {_LAYOUT}. Make one a class")
    empty = [subfolder.name for subfolder in subfolders if not find_images(subfolder)]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(subfolders)} class folders in {folder} hold no image "
            f"({_extensions()}): {_names(empty)}. Add photos to them, or remove them"
        )
    if len(subfolders) < 2:
        raise DataError(
            f"only one class, {_names([subfolders[0].name])}, in {folder}: expected at least 2 to "
            "tell apart. Add a folder for each further product"
        )
    return tuple(subfolder.name for subfolder in subfolders)


def _samples(folder: Path, classes: tuple[str, ...]) -> tuple[Sample, ...]:
    """Photos below the class folders of one split, sorted by class and path."""
    labels = {name: label for label, name in enumerate(classes)}
    photos = {subfolder.name: find_images(subfolder) for subfolder in _subfolders(folder)}
    unknown = [name for name, paths in photos.items() if paths and name not in labels]
    if unknown:
        raise DataError(
            f"{folder} has photos of {len(unknown)} classes that are not trained on: "
            f"{_names(unknown)}. Add their folders to {folder.parent / 'train'}, or remove them "
            "(the names have to be the same in every split)"
        )
    _log_loose_photos(folder)
    return tuple(Sample(path, labels[name]) for name, paths in photos.items() for path in paths)


def _subfolders(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=lambda path: path.name)


def _repeats(train: int) -> int:
    return min(math.ceil(_EPOCH_SAMPLES / train), _MAX_REPEATS)


def _log_ignored_folders(root: Path) -> None:
    ignored = [path.name for path in _subfolders(root) if path.name not in _SPLIT_NAMES]
    if ignored:
        logger.warning("%s: not a split, left out: %s", root, _names(ignored))


def _log_loose_photos(folder: Path) -> None:
    loose = [path for path in find_images(folder) if path.parent == folder]
    if loose:
        logger.warning("%s: %d photos in no class folder, left out", folder, len(loose))


def _log_untested(classes: tuple[str, ...], test: Iterable[Sample]) -> None:
    tested = {sample.label for sample in test}
    untested = [name for label, name in enumerate(classes) if label not in tested]
    if untested:
        logger.warning("%d classes have no test photos: %s", len(untested), _names(untested))


def _names(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _extensions() -> str:
    return " ".join(sorted(extension[1:] for extension in IMAGE_EXTENSIONS))


FOLDER = Source(
    name="folder",
    datasets={"folder": CatalogEntry(lambda options: load_folder(options.required_root()))},
    home="photos of your own, a folder a product",
)
"""As the catalog knows it."""
