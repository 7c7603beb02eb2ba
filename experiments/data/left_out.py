"""What is among photos and not read, and the lines that say so."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.data.names import printable
from lca_fused.photos.formats import readable_suffixes, why_not_read

_LISTED = 5  # examples in a line


class Why(enum.Enum):
    """Why something is not read; the value says what it is, of several."""

    FORMAT = "photos of a format that is not read"
    UNREADABLE = "folders that cannot be read"
    BROKEN_LINK = "links to what is not there"
    LINK = "links to folders that are read anyway"
    MASK = "masks, NAME.mask.png, of photos that are not there"
    NOT_A_FILE = "pipes, sockets or devices"
    SYSTEM = "hidden, system, thumbnail or backup files and folders"
    OUTPUT = "results and pictures of earlier runs"
    OTHER = "files that are no photos"


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not read.

    Attributes:
        path: the file that is not read, or the folder of which nothing is.
        why: reason why it is not read.
        detail: what is wrong with it or what to do, where there is more to say; else "".
    """

    path: Path
    why: Why
    detail: str = ""

    @property
    def expected_photo(self) -> bool:
        """Whether whoever looks for photos would expect it to be one, or to hold some."""
        if self.why in {Why.FORMAT, Why.UNREADABLE}:
            return True
        suffix = self.path.suffix.lower()
        named_as_photo = suffix in readable_suffixes() or why_not_read(suffix) is not None
        return named_as_photo and self.why in {Why.BROKEN_LINK, Why.NOT_A_FILE}


def describe(left_out: Iterable[LeftOut], root: Path) -> list[str]:
    """Return a line for each reason there is, with how many and which.

    Args:
        left_out: files and folders that are not read.
        root: folder that the printed paths are relative to.
    """
    by_reason: dict[Why, list[LeftOut]] = {why: [] for why in Why}
    for item in dict.fromkeys(left_out):
        by_reason[item.why].append(item)
    return [
        f"{len(items)} {why.value}, left out: {_which(why, items, root)}"
        for why, items in by_reason.items()
        if items
    ]


def _which(why: Why, items: Sequence[LeftOut], root: Path) -> str:
    if why is Why.FORMAT:
        return _by_suffix(items)
    if why is Why.OTHER:
        return _counted(Counter(_suffix(item.path) for item in items))
    if why is Why.SYSTEM:
        return _counted(Counter(printable(item.path.name) for item in items))
    names = [_named(item, root) for item in items[:_LISTED]]
    return ", ".join(names) + (", ..." if len(items) > _LISTED else "")


def _by_suffix(items: Sequence[LeftOut]) -> str:
    """Name the formats, those of one remedy together."""
    suffixes: dict[str, Counter[str]] = {}
    for item in items:
        suffixes.setdefault(item.detail, Counter())[_suffix(item.path)] += 1
    return "; ".join(f"{_counted(counts)} ({remedy})" for remedy, counts in suffixes.items())


def _counted(counts: Counter[str]) -> str:
    shown = [f"{count} {name}" for name, count in counts.most_common(_LISTED)]
    return ", ".join(shown) + (", ..." if len(counts) > _LISTED else "")


def _suffix(path: Path) -> str:
    return printable(path.suffix[1:].upper()) or "without a suffix"


def _named(item: LeftOut, root: Path) -> str:
    path = item.path.relative_to(root) if item.path.is_relative_to(root) else item.path
    return printable(path) + (f" ({item.detail})" if item.detail else "")
