"""What was computed: the results of cells, the entries they make in a table, and their differences.

A cell is one training, or one keypoint matching, on one data set. Hits, accuracies, intervals and
differences are computed here and nowhere else.
"""

from __future__ import annotations

import json
import statistics
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.checksum import content_digests
from experiments.methods import METHODS, Row
from experiments.significance import (
    Difference,
    paired_difference,
    student_half_width,
    wilson_interval,
)
from experiments.storage import CheckpointError, save_json


class PhotosNotFoundError(ValueError):
    """The photos of a result are not to be had; the message says what to do."""


@dataclass(frozen=True)
class Result:
    """What one cell came to on the test photos.

    Attributes:
        path: JSON file that the result is stored in.
        command: command line that computes the result.
        settings: everything the result depends on (see `experiments.study.cells.Cell.settings`).
        labels: class index of each test photo.
        top5: up to 5 class indices for each test photo, by falling probability.
        classes: names of the classes.
        trained_on: number of training photos of each class.
        folder: folder of all photos of the data set.
        images: path of each test photo, relative to `folder`.
        contents: `content_digest` of each test photo.
        trained_contents: `content_digest` of each training photo.
        notes: what a reader of the figures has to know of the photos, a sentence each.
        seconds: duration of the whole run in seconds.
        device: name of the CPU or GPU.
        versions: version of each package that computed the result, by its name.
        best_epoch: epoch that was kept, from 1; None for keypoint matching.
        history: one entry per epoch; empty for keypoint matching.
        images_per_second: training photos per second; None where that was not measured.
        peak_bytes: peak memory of a training step; None where that was not measured.
    """

    path: Path
    command: str
    settings: Mapping[str, Any]
    labels: Sequence[int]
    top5: Sequence[Sequence[int]]
    classes: Sequence[str]
    trained_on: Sequence[int]
    folder: str
    images: Sequence[str]
    contents: Sequence[str]
    trained_contents: Sequence[str]
    notes: Sequence[str]
    seconds: float
    device: str
    versions: Mapping[str, str]
    best_epoch: int | None = None
    history: Sequence[Mapping[str, float]] = ()
    images_per_second: float | None = None
    peak_bytes: int | None = None

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file does not hold a result.
            OSError: it cannot be read.
        """
        try:
            result = cls(path, **json.loads(path.read_text(encoding="utf-8")))
            _ = result.dataset, METHODS[result.method]
            if not 0 < len(result.labels) == len(result.predicted):
                raise ValueError(f"{len(result.labels)} labels, {len(result.top5)} predictions")
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise CheckpointError(
                f"{path} is no stored result ({error}); delete it, it is then computed again"
            ) from error
        return result

    def save(self) -> None:
        """Write it to `path`, atomically.

        Raises:
            OSError: it cannot be written.
        """
        names = [field.name for field in fields(self) if field.name != "path"]
        save_json({name: getattr(self, name) for name in names}, self.path)

    @property
    def dataset(self) -> str:
        """Name of the data set and its protocol."""
        return self.settings["dataset"]

    @property
    def method(self) -> str:
        """Key of `METHODS`."""
        return self.settings["method"]

    @property
    def seed(self) -> int | None:
        """Seed of the training; None for keypoint matching."""
        return self.settings.get("seed")

    @property
    def name(self) -> str:
        """Path of its file below the folder of everything that was computed."""
        return Path("cells", self.dataset, self.path.name).as_posix()

    @property
    def model(self) -> Path | None:
        """Folder of the trained classifier, or None where there is none (any more)."""
        folder = model_folder(self.path)
        return folder if folder.is_dir() else None

    @cached_property
    def predicted(self) -> list[int]:
        """Class index that each test photo was taken for."""
        return [top[0] for top in self.top5]

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether each test photo is recognised."""
        return np.equal(self.predicted, self.labels)

    @property
    def hits(self) -> int:
        """Number of test photos that are recognised."""
        return int(self.right.sum())

    @property
    def accuracy(self) -> float:
        """Share of test photos that are recognised, 0..1."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy, 0..1: the test photos are a sample."""
        return wilson_interval(self.hits, len(self.labels))

    def find_photos(self, moved_to: Iterable[Path] = ()) -> list[Path]:
        """Return the test photos' files, whose content is what was tested.

        Args:
            moved_to: folders that may hold `folder`, or its last parts, where it was moved.

        Raises:
            PhotosNotFoundError: photos are gone or were changed.
        """
        parts = Path(self.folder).parts
        ends = [parts[place:] for place in range(len(parts), 0, -1)]
        places = [Path(self.folder), *(base.joinpath(*end) for base in moved_to for end in ends)]
        place = next((place for place in places if _file(place, self.images[0])), None)
        if place is None:
            raise PhotosNotFoundError(
                f"{self.folder} does not hold {self.images[0]} any more; give the folder it was "
                "moved to with --data-root or LCA_DATA_ROOT"
            )
        files = [_file(place, image) for image in self.images]
        there = [file for file in files if file is not None]
        if len(there) < len(files):
            raise PhotosNotFoundError(
                f"{len(files) - len(there)} of the {len(files)} test photos are gone from {place}, "
                f"{self.images[files.index(None)]} for one"
            )
        self._check_contents(there)
        return there

    def _check_contents(self, files: Sequence[Path]) -> None:
        try:
            found = zip(files, content_digests(files), self.contents, strict=True)
        except OSError as error:
            raise PhotosNotFoundError(f"a test photo cannot be read: {error}") from error
        changed = [file for file, content, tested in found if content != tested]
        if changed:
            raise PhotosNotFoundError(
                f"{len(changed)} of the {len(files)} test photos were changed since they were "
                f"tested, {changed[0]} for one; run the same command again to test them as they are"
            )


def model_folder(path: Path) -> Path:
    """Return the folder beside a result's file that its trained classifier is stored in."""
    return path.with_suffix(".model")


def trained_contents(model: str | Path) -> set[str] | None:
    """Return the `content_digest` of each photo that a stored classifier was trained on.

    None where no result is beside its folder, as finetune.py and run_all.py store it.
    """
    try:
        result = Result.read(Path(model).absolute().with_suffix(".json"))
    except (OSError, CheckpointError):
        return None
    return set(result.trained_contents)


def _file(folder: Path, image: str) -> Path | None:
    """Return a photo; its name may have been composed or decomposed on the way to this system."""
    forms = (image, *(unicodedata.normalize(form, image) for form in ("NFC", "NFD")))
    return next((folder / form for form in forms if (folder / form).is_file()), None)


@dataclass(frozen=True)
class NotRun:
    """Why a place in the table is empty, or lacks seeds.

    Attributes:
        short: a few words for the table's place itself, e.g. "no photos".
        reason: what is missing and what to do.
    """

    short: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """One place in the table: a row on a data set.

    Attributes:
        row: the row that the entry is in.
        dataset: name of the data set, as the table's column has it.
        results: the results that are computed, one per seed.
        not_run: reason why there are not more, or None.
    """

    row: Row
    dataset: str
    results: tuple[Result, ...] = ()
    not_run: NotRun | None = None

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Test accuracy of each result, 0..1."""
        return tuple(result.accuracy for result in self.results)

    @property
    def mean(self) -> float:
        """Mean test accuracy, per cent; of at least one result."""
        return 100 * statistics.fmean(self.accuracies)

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of the mean (Student's t over seeds), per cent points.

        None for fewer than two results, and where the seed decided nothing (a gallery of photos as
        they are): results that name the same products are one.
        """
        if len({tuple(result.predicted) for result in self.results}) < 2:
            return None
        half = student_half_width(self.accuracies)
        return None if half is None else 100 * half

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval in per cent: Student's over seeds, or Wilson's over one's photos.

        Student's is cut off at 0 and 100.
        """
        half = self.half_width
        if half is not None:
            return max(self.mean - half, 0.0), min(self.mean + half, 100.0)
        low, high = self.results[0].interval
        return 100 * low, 100 * high

    @property
    def images_per_second(self) -> float | None:
        """Median over the results that measured it, or None."""
        measured = [result.images_per_second for result in self.results]
        return statistics.median(known) if (known := [x for x in measured if x]) else None

    @property
    def peak_bytes(self) -> int | None:
        """The highest peak memory that any result measured, or None."""
        return max(
            (result.peak_bytes for result in self.results if result.peak_bytes), default=None
        )

    @property
    def devices(self) -> list[str]:
        """Names of the devices it was computed on."""
        return list(dict.fromkeys(result.device for result in self.results))

    @property
    def right(self) -> NDArray[np.bool_]:
        """(seeds, n) whether each test photo is recognised."""
        return np.stack([result.right for result in self.results])

    def __str__(self) -> str:
        if not self.results:
            return f"not run: {self.not_run.short}" if self.not_run else "not run"
        half = self.half_width
        if half is None:
            low, high = self.interval
            return f"{self.mean:.1f} ({low:.1f} to {high:.1f}, n=1)"
        return f"{self.mean:.1f} ± {half:.1f} (n={len(self.results)})"


@dataclass(frozen=True)
class Step:
    """Two rows that differ by one trick.

    Attributes:
        trick: name of the trick, the subject of a sentence, e.g. "the maximum-entropy loss".
        before: the row without the trick.
        after: the row with the trick.
    """

    trick: str
    before: Row
    after: Row


@dataclass(frozen=True)
class Table:
    """Everything that one study came to.

    Attributes:
        rows: rows from the top.
        datasets: names of the data sets, as they were asked for.
        description: what the table says about the study: values by their names.
        entries: entries by the names of the row and of the data set.
    """

    rows: Sequence[Row]
    datasets: Sequence[str]
    description: Mapping[str, str]
    entries: dict[tuple[str, str], Entry]

    @classmethod
    def empty(
        cls,
        rows: Sequence[Row],
        datasets: Sequence[str],
        description: Mapping[str, str],
        not_run: Mapping[str, NotRun],
    ) -> Table:
        """Return a table without results; `not_run` says of each data set why."""
        entries = {
            (row.name, name): Entry(row, name, not_run=not_run[name])
            for row in rows
            for name in datasets
        }
        return cls(rows, datasets, description, entries)

    def row(self, row: Row) -> list[Entry]:
        """Return a row's entries, one per data set."""
        return [self.entries[row.name, name] for name in self.datasets]

    def column(self, dataset: str) -> list[Entry]:
        """Return a data set's entries, one per row."""
        return [self.entries[row.name, dataset] for row in self.rows]

    def differences(self, step: Step) -> dict[str, Difference | None]:
        """Return what a step gained on each data set; None where no seed is of both rows."""
        both = zip(self.row(step.before), self.row(step.after), strict=True)
        return {before.dataset: difference(before, after) for before, after in both}


def steps(rows: Sequence[Row]) -> list[Step]:
    """Return the steps between `rows`, in the order of the rows they lead to.

    A trick is measured on the same backbone; a backbone against the one asked for before it, with
    the same method.
    """
    found = []
    for place, after in enumerate(rows):
        same_method = [row for row in rows[:place] if row.method_name == after.method_name]
        if same_method:
            found.append(Step(f"{after.backbone} as the backbone", same_method[-1], after))
        found += [
            Step(after.method.trick, before, after)
            for method in after.method.against
            for before in rows
            if before.method_name == method and _comparable(before, after, bool(same_method))
        ]
    return found


def _comparable(before: Row, after: Row, again: bool) -> bool:
    """Whether only the trick differs; keypoint matching is compared with a method's first row."""
    return before.backbone == after.backbone or (before.backbone is None and not again)


def difference(before: Entry, after: Entry) -> Difference | None:
    """Return by how much `after` is more accurate; None where no seed is of both.

    Results of the same seed are paired; one without a seed goes with every one. Rows whose cells
    were computed on other test photos than each other's do not meet in a table: the photos are
    part of a cell's name.
    """
    pairs = [
        (one.right, other.right)
        for one in before.results
        for other in after.results
        if one.seed is None or other.seed is None or one.seed == other.seed
    ]
    if not pairs:
        return None
    first, second = (np.stack(side) for side in zip(*pairs, strict=True))
    return paired_difference(first, second)
