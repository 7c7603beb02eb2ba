"""The classes that are confused most, side by side, with photos of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.report.confusion import confused_pairs
from experiments.report.photos import CellPhotos, thumbnail
from experiments.report.stored import StoredCell

_PHOTOS_A_CLASS = 4


@dataclass(frozen=True)
class PairPhoto:
    """A test photo of a confused class: data URI, and the class it was taken for if not its own."""

    uri: str | None
    taken_for: str | None


@dataclass(frozen=True)
class PairSide:
    """One class of a confused pair, how often it is taken for the other, and photos of it."""

    name: str
    mistakes: int
    total: int
    photos: tuple[PairPhoto, ...]


def side_by_side(
    cell: StoredCell, names: Sequence[str], photos: CellPhotos | None, most: int
) -> list[tuple[PairSide, PairSide]]:
    """Return up to `most` pairs of classes that are confused, the most mistakes first.

    Args:
        cell: whose predictions.
        names: of the classes.
        photos: of the cell, or None where they were not found; the sides then have none.
        most: pairs.
    """
    totals = Counter(cell.labels)
    sides = []
    for pair in confused_pairs(cell.labels, cell.predicted, most):
        one, other = (
            PairSide(
                names[label],
                len(mistakes),
                totals[label],
                () if photos is None else _photos(cell, names, photos, label, mistakes),
            )
            for label, mistakes in zip(pair.labels, pair.mistakes, strict=True)
        )
        sides.append((one, other))
    return sides


def _photos(
    cell: StoredCell,
    names: Sequence[str],
    photos: CellPhotos,
    label: int,
    mistakes: Sequence[int],
) -> tuple[PairPhoto, ...]:
    """Show the mistakes first, then photos that were recognised."""
    recognised = [
        position
        for position, (true, taken) in enumerate(zip(cell.labels, cell.predicted, strict=True))
        if true == taken == label
    ]
    # One place is kept for a photo that was recognised, to see what the class looks like.
    shown = [*mistakes[: _PHOTOS_A_CLASS - bool(recognised)], *recognised][:_PHOTOS_A_CLASS]
    return tuple(
        PairPhoto(
            thumbnail(photos.test[position]),
            None if position in recognised else names[cell.predicted[position]],
        )
        for position in shown
    )
