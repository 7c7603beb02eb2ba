"""Photos that are there more than once, byte for byte: in two splits, or under two labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiments.checksum import sha256
from experiments.data.dataset import ProductDataset, Sample
from experiments.data.images import default_workers
from experiments.data.names import printable

_LISTED = 10  # groups spelled out in one note


def find_copies(paths: Iterable[Path]) -> dict[Path, str]:
    """Find the files whose content others have too, hard and symbolic links among them.

    Only files of equal size are read, so this is quick where photos are compressed. Files that are
    empty or cannot be read are no one's copies.

    Args:
        paths: files to compare.

    Returns:
        The files that are there more than once, each with a key of its content.
    """
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        by_size[_size(path)].append(path)
    candidates = [
        path for size, same in by_size.items() if size > 0 and len(same) > 1 for path in same
    ]
    with ThreadPoolExecutor(default_workers()) as pool:
        keys = dict(zip(candidates, pool.map(_key, candidates), strict=True))
    by_key: dict[str, list[Path]] = defaultdict(list)
    for path, key in keys.items():
        by_key[key].append(path)
    return {path: key for key, same in by_key.items() if key and len(same) > 1 for path in same}


def describe_copies(dataset: ProductDataset, copies: Mapping[Path, str]) -> list[str]:
    """Return a note for copies in two splits, one for copies under two labels, one for the others.

    Args:
        dataset: data set whose photos the copies are.
        copies: a key of the content of each copied file, as `find_copies` returns it.
    """
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    places: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for split, samples in splits.items():
        for sample in samples:
            if sample.path in copies:
                places[copies[sample.path]].append((split, sample))
    groups = [group for group in places.values() if len(group) > 1]
    leaking = [group for group in groups if len({split for split, _ in group}) > 1]
    mislabelled = [group for group in groups if len({sample.label for _, sample in group}) > 1]
    others = [group for group in groups if group not in leaking and group not in mislabelled]
    return [
        *_note(leaking, "are in two splits, which makes scores better than on new photos"),
        *_note(mislabelled, "are under two labels, one of which is wrong"),
        *_note(others, "are in one class of one split, where each counts"),
    ]


def _note(groups: Sequence[Sequence[tuple[str, Sample]]], what: str) -> list[str]:
    if not groups:
        return []
    listed = [
        " = ".join(printable(Path(*sample.path.parts[-3:])) for _, sample in group)
        for group in groups[:_LISTED]
    ]
    more = f"; and {len(groups) - _LISTED} more" if len(groups) > _LISTED else ""
    return [f"{len(groups)} photos, identical copies, {what}: {'; '.join(listed)}{more}."]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _key(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:
        return ""
