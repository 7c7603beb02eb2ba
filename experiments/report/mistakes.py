"""Which classes are taken for which: their accuracy, confused pairs, the confusion matrix."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.report.figures import thumbnail
from experiments.results import Result
from experiments.significance import wilson_interval

_PHOTOS_PER_CLASS = 4


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised.

    Attributes:
        label: index of the class.
        right: number of test photos of the class that are recognised.
        total: number of test photos of the class, at least 1.
        mistaken_for: (class index, photos) that its photos were taken for instead, most often
            first.
    """

    label: int
    right: int
    total: int
    mistaken_for: tuple[tuple[int, int], ...]

    @property
    def accuracy(self) -> float:
        """Per cent."""
        return 100 * self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy, per cent."""
        low, high = wilson_interval(self.right, self.total)
        return 100 * low, 100 * high


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that are taken for each other.

    Attributes:
        labels: indices of the two classes: the one that is mistaken more often, and the other.
        mistakes: positions of the test photos of each that were taken for the other.
    """

    labels: tuple[int, int]
    mistakes: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def count(self) -> int:
        """Mistakes in both directions."""
        return len(self.mistakes[0]) + len(self.mistakes[1])


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix of some classes.

    Attributes:
        labels: indices of the classes shown, rising.
        counts: counts[i][j] photos of labels[i] were taken for labels[j].
        others: number of photos of each labels[i] that were taken for a class that is not shown.
        complete: whether all classes that were tested or predicted are shown.
    """

    labels: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]
    complete: bool


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


def class_scores(labels: Sequence[int], predicted: Sequence[int]) -> list[ClassScore]:
    """Return a score for each class with test photos, the least recognised first."""
    taken: dict[int, Counter[int]] = defaultdict(Counter)
    for label, prediction in zip(labels, predicted, strict=True):
        taken[label][prediction] += 1
    scores = [
        ClassScore(
            label,
            right=predictions[label],
            total=predictions.total(),
            mistaken_for=tuple(
                (other, count) for other, count in predictions.most_common() if other != label
            ),
        )
        for label, predictions in taken.items()
    ]
    return sorted(scores, key=lambda score: (score.accuracy, -score.total, score.label))


def confused_pairs(
    labels: Sequence[int], predicted: Sequence[int], most: int
) -> list[ConfusedPair]:
    """Return the pairs of classes that are taken for each other, the most mistakes first."""
    mistakes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position, (label, prediction) in enumerate(zip(labels, predicted, strict=True)):
        if label != prediction:
            mistakes[label, prediction].append(position)
    pairs = []
    for low, high in sorted({(min(key), max(key)) for key in mistakes}):
        there, back = mistakes.get((low, high), []), mistakes.get((high, low), [])
        if len(back) > len(there):
            low, high, there, back = high, low, back, there
        pairs.append(ConfusedPair((low, high), (tuple(there), tuple(back))))
    return sorted(pairs, key=lambda pair: (-pair.count, pair.labels))[:most]


def confusion_matrix(labels: Sequence[int], predicted: Sequence[int], most: int) -> Matrix:
    """Return the confusion matrix, of the `most` most confused classes where there are more.

    A class is the more confused the more of its photos are taken for others, and the more photos
    of others for it.
    """
    counts = Counter(zip(labels, predicted, strict=True))
    known = set(labels) | set(predicted)
    confused: Counter[int] = Counter()
    for (label, prediction), count in counts.items():
        if label != prediction:
            confused[label] += count
            confused[prediction] += count
    ranked = sorted(known, key=lambda label: (-confused[label], label))
    shown = tuple(sorted(ranked[:most]))
    rows = tuple(tuple(counts[row, column] for column in shown) for row in shown)
    totals = Counter(labels)
    return Matrix(
        labels=shown,
        counts=rows,
        others=tuple(totals[label] - sum(row) for label, row in zip(shown, rows, strict=True)),
        complete=len(shown) == len(known),
    )


def side_by_side(
    result: Result, photos: Sequence[Path] | None, most: int
) -> list[tuple[PairSide, PairSide]]:
    """Return up to `most` pairs of classes that are confused, the most mistakes first.

    Args:
        result: result that holds the predictions.
        photos: test photos of the result, or None where they were not found; the sides then have
            none.
        most: greatest number of pairs to return.
    """
    totals = Counter(result.labels)
    sides = []
    for pair in confused_pairs(result.labels, result.predicted, most):
        one, other = (
            PairSide(
                result.classes[label],
                len(mistakes),
                totals[label],
                () if photos is None else _photos(result, photos, label, mistakes),
            )
            for label, mistakes in zip(pair.labels, pair.mistakes, strict=True)
        )
        sides.append((one, other))
    return sides


def _photos(
    result: Result, photos: Sequence[Path], label: int, mistakes: Sequence[int]
) -> tuple[PairPhoto, ...]:
    """Show the mistakes first, then photos that were recognised."""
    recognised = [
        position
        for position, right in enumerate(result.right)
        if right and result.labels[position] == label
    ]
    # One place is kept for a photo that was recognised, to see what the class looks like.
    mistaken = mistakes[: _PHOTOS_PER_CLASS - bool(recognised)]
    return tuple(
        PairPhoto(
            thumbnail(photos[position]),
            result.classes[result.predicted[position]] if position in mistaken else None,
        )
        for position in [*mistaken, *recognised][:_PHOTOS_PER_CLASS]
    )
