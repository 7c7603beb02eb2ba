"""The Grocery Store Dataset (Klasson et al., WACV 2019), read in its own layout on disk."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.data.source import CatalogEntry, DataOptions, Source
from experiments.data.splits import stratified_holdout

_SOURCE = "https://github.com/marcusklasson/GroceryStoreDataset"
_FOLDERS = ("", "dataset", "grocery_store/dataset", "GroceryStoreDataset/dataset")
_FILES = ("classes.csv", "train.txt", "val.txt", "test.txt")
_ONE_SHOT_REPEATS = 12
_LISTED = 5  # missing files spelled out in one message


@dataclass(frozen=True)
class _Class:
    """One line of classes.csv."""

    name: str
    coarse_id: int
    coarse_name: str
    packshot: str


@dataclass(frozen=True)
class _Photo:
    """One line of a split's list."""

    path: Path
    class_id: int


def load_grocery_store(
    root: str | Path,
    protocol: Literal["many-shot", "one-shot"],
    *,
    labels: Literal["fine", "coarse"] = "fine",
    part: str | None = "Packages",
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> ProductDataset:
    """Read the data set.

    The official validation split covers only 20 of the 31 package classes, too few to choose an
    epoch on. So its photos are pooled with the training photos, and a stratified holdout of the
    pool is the validation set, the same in both protocols. The test set is the official one.

    "many-shot" trains on the rest of the pool, "one-shot" on the iconic packshot of each class
    (with coarse labels: on the packshots of all its fine classes), drawn 12 times per epoch.

    Args:
        root: the folder with classes.csv and train.txt, the clone of the repository that holds it
            as dataset/, or a folder of data sets that holds it as grocery_store/dataset/.
        protocol: key of the protocol, which says what photos are trained on.
        labels: kind of label: fine classes are products, coarse ones are kinds of product.
        part: the first folder of a split that photos are taken from (Packages, Fruit, Vegetables);
            None for all.
        validation_fraction: share of the pool that is held out, in [0, 1).
        seed: seed of the holdout's draw.

    Returns:
        The data set, named "grocery-store/<protocol>", with "-all" behind "grocery-store" for all
        parts and "-coarse" for coarse labels. Its classes are those with photos in the part, in the
        order of their official ids.

    Raises:
        DataError: the data set is not there or not in this layout, a line of its lists is
            malformed, a listed photo or a packshot is missing, an id is not in classes.csv, or the
            part has no photos. The message says which, and what to do.
    """
    folder = _find_folder(Path(root))
    known = _read_classes(folder / "classes.csv")
    pool, test = (
        _read_photos(folder, lists, known, part)
        for lists in (("train.txt", "val.txt"), ("test.txt",))
    )
    present = sorted({photo.class_id for photo in (*pool, *test)})
    label_of, names = _labels(known, present, coarse=labels == "coarse")
    rest, validation = stratified_holdout(_samples(pool, label_of), validation_fraction, seed)
    one_shot = protocol == "one-shot"
    if one_shot:
        rest = _samples(_packshots(folder, known, present), label_of)
    of_all, coarse = "-all" if part is None else "", "-coarse" if labels == "coarse" else ""
    return ProductDataset(
        name=f"grocery-store{of_all}{coarse}/{protocol}",
        classes=names,
        train=rest,
        validation=validation,
        test=_samples(test, label_of),
        train_repeats=_ONE_SHOT_REPEATS if one_shot else 1,
    )


def _find_folder(root: Path) -> Path:
    candidates = [root / folder for folder in _FOLDERS]
    for candidate in candidates:
        if (candidate / "classes.csv").is_file():
            break
    else:
        looked_for = ", ".join(str(folder / "classes.csv") for folder in candidates)
        given = "is not the Grocery Store Dataset" if root.exists() else "does not exist"
        raise DataError(
            f"{root} {given}: looked for {looked_for}. Get it with `git clone {_SOURCE}` and pass "
            "the clone"
        )
    missing = [name for name in _FILES if not (candidate / name).is_file()]
    if missing:
        raise DataError(
            f"{candidate} is not a whole Grocery Store Dataset: expected {', '.join(_FILES)}, "
            f"missing {', '.join(missing)}. Get it anew with `git clone {_SOURCE}`"
        )
    return candidate


def _read_classes(file: Path) -> dict[int, _Class]:
    """Classes by their fine id."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        next(rows, None)
        return dict(_parse_class(file, rows.line_num, row) for row in rows if row)


def _parse_class(file: Path, number: int, row: list[str]) -> tuple[int, _Class]:
    try:
        name, fine_id, coarse_name, coarse_id, packshot, *_ = row
        return int(fine_id), _Class(name, int(coarse_id), coarse_name, packshot.lstrip("/"))
    except ValueError:
        columns = "class name, class id, coarse class name, coarse class id, iconic image path"
        raise _malformed(file, number, columns, ",".join(row)) from None


def _read_photos(
    folder: Path, lists: Sequence[str], known: dict[int, _Class], part: str | None
) -> list[_Photo]:
    photos = []
    for name in lists:
        photos += _read_list(folder / name, known, part)
    if not photos:
        wanted = "photos" if part is None else f'photos of the part "{part}"'
        raise DataError(
            f"no {wanted} in {' and '.join(lists)} of {folder}: the parts are Packages, Fruit and "
            "Vegetables (a copy may hold fewer). Pass one that is listed there, or None for all"
        )
    _check_files("photos listed in " + " and ".join(lists), [photo.path for photo in photos])
    return photos


def _read_list(file: Path, known: dict[int, _Class], part: str | None) -> list[_Photo]:
    photos = []
    coarse_ids = {entry.coarse_id for entry in known.values()}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        path, fine_id, coarse_id = _parse_photo(file, number, line)
        if fine_id not in known or coarse_id not in coarse_ids:
            raise DataError(
                f"{file}, line {number}: class id {fine_id} or coarse class id {coarse_id} is not "
                f"in {file.parent / 'classes.csv'}. Get both files anew from {_SOURCE}"
            )
        if part is None or path.split("/")[1:2] == [part]:
            photos.append(_Photo(file.parent / path, fine_id))
    return photos


def _parse_photo(file: Path, number: int, line: str) -> tuple[str, int, int]:
    try:
        path, fine_id, coarse_id = line.rsplit(",", 2)
        return path, int(fine_id), int(coarse_id)
    except ValueError:
        raise _malformed(file, number, "path, class id, coarse class id", line) from None


def _packshots(folder: Path, known: dict[int, _Class], present: Sequence[int]) -> list[_Photo]:
    packshots = [_Photo(folder / known[class_id].packshot, class_id) for class_id in present]
    _check_files("packshots named in classes.csv", [photo.path for photo in packshots])
    return packshots


def _check_files(what: str, paths: Sequence[Path]) -> None:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        more = ", ..." if len(missing) > _LISTED else ""
        raise DataError(
            f"{len(missing)} of {len(paths)} {what} do not exist: "
            f"{', '.join(missing[:_LISTED])}{more}. Get them from {_SOURCE}"
        )


def _labels(
    known: dict[int, _Class], present: Sequence[int], *, coarse: bool
) -> tuple[dict[int, int], tuple[str, ...]]:
    """The label of each fine id that is present, and the name of each label."""
    if not coarse:
        names = tuple(known[class_id].name for class_id in present)
        return {class_id: label for label, class_id in enumerate(present)}, names
    coarse_names = {known[fine].coarse_id: known[fine].coarse_name for fine in present}
    coarse_ids = sorted(coarse_names)
    return (
        {fine: coarse_ids.index(known[fine].coarse_id) for fine in present},
        tuple(coarse_names[coarse_id] for coarse_id in coarse_ids),
    )


def _samples(photos: Sequence[_Photo], label_of: dict[int, int]) -> tuple[Sample, ...]:
    return tuple(Sample(photo.path, label_of[photo.class_id]) for photo in photos)


def _malformed(file: Path, number: int, expected: str, line: str) -> DataError:
    return DataError(
        f"{file}, line {number}: expected '{expected}', got {line!r}. Repair the line, or get the "
        f"file anew from {_SOURCE}"
    )


def _entry(
    protocol: Literal["many-shot", "one-shot"],
    labels: Literal["fine", "coarse"] = "fine",
    part: str | None = "Packages",
) -> CatalogEntry:
    def load(options: DataOptions) -> ProductDataset:
        return load_grocery_store(options.required_root(), protocol, labels=labels, part=part)

    return CatalogEntry(load)


GROCERY_STORE = Source(
    name="grocery-store",
    datasets={
        "grocery-store/many-shot": _entry("many-shot"),
        "grocery-store/one-shot": _entry("one-shot"),
        "grocery-store-coarse/many-shot": _entry("many-shot", "coarse"),
        "grocery-store-coarse/one-shot": _entry("one-shot", "coarse"),
        # Fruit and vegetables too: the 81 fine and 43 coarse classes of published figures.
        "grocery-store-all/many-shot": _entry("many-shot", part=None),
        "grocery-store-all-coarse/many-shot": _entry("many-shot", "coarse", part=None),
    },
    home=f"`git clone {_SOURCE}`",
)
"""As the catalog knows it."""
