"""What to look at in a folder of photos before training on it: copies, odd photos, odd classes."""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.data.class_folders import ClassFolders
from experiments.data.copies import find_copies
from experiments.data.cut_out import what_tells
from experiments.data.dataset import DataError, Sample
from experiments.data.folder import FEW, Layout, few_photos, read_layout, samples_of
from experiments.data.inspection import Inspected, inspect_photos
from experiments.data.left_out import LeftOut, Why, describe
from experiments.data.names import printable
from experiments.data.near_copies import NEAR, group_near

TINY = 64
"""Pixels of the shorter side, below which a photo is tiny: a network of 224 enlarges it over three
times."""


_SPLITS = ("train", "validation", "test")


class Kind(enum.Enum):
    """Of a finding: what it is, and what to do about it."""

    LAYOUT = ("The folder cannot be trained on", "finetune.py would stop with this.")
    STRAYS = ("Beside the class folders", "They are not read: move what is a photo into a class.")
    NOT_READ = (
        "Photos and folders that are left out",
        "Save them in a format that is read, or see why they cannot be.",
    )
    UNREADABLE = (
        "Unreadable photos",
        "Replace or remove them; finetune.py stops at them unless --skip-bad-images is given.",
    )
    WRONG_LABELS = (
        "Likely wrong labels",
        "The model is sure of another product, by confident learning: look at each, it is a "
        "question and not a verdict.",
    )
    COPIES_OF_LABELS = (
        "Identical photos under several labels",
        "One of the labels is wrong: remove the photo there.",
    )
    COPIES_OF_SPLITS = (
        "Identical photos in several splits",
        "The test knows them from training: remove them from one of the splits.",
    )
    COPIES = (
        "Identical photos in one class",
        "Each counts in training; where a split is drawn they stay on one side.",
    )
    NEAR_OF_LABELS = (
        "Near-duplicates under several labels",
        "Either one photo was filed twice and one label is wrong, or the packages look alike, as "
        "flavours do: a hash of grey shapes cannot tell, look at them.",
    )
    NEAR_OF_SPLITS = (
        "Near-duplicates in several splits",
        "The test may know them from training, and be better than on new photos: keep one.",
    )
    NEAR = (
        "Near-duplicates in one class",
        "They teach little more than one of them; where a split is drawn they may come to lie on "
        "both sides, so give photos of one burst a split by hand.",
    )
    TINY = (
        f"Tiny photos, under {TINY} pixels a side",
        "Small print is gone: take larger ones, unless the photos at the checkout are as small.",
    )
    PLAIN = ("Photos of one colour", "There is nothing to see in them: remove them.")
    EMPTY = ("Classes without photos", "Add photos or remove the folders.")
    FEW = (
        f"Classes with fewer than {FEW} training photos",
        "Add photos here first, unless they are packshots; a gallery (enroll.py) needs least.",
    )
    UNTRAINED = (
        "Classes without training photos",
        "Photos of them elsewhere can only be mistaken: add photos to train/, or remove them.",
    )
    UNTESTED = ("Classes without test photos", "The test will say nothing about them.")

    def __init__(self, title: str, advice: str) -> None:
        self.title = title
        self.advice = advice


@dataclass(frozen=True)
class Place:
    """A photo, and what it is filed under.

    Attributes:
        path: the file.
        split: "train", "validation" or "test"; "all" where the folder has no splits.
        name: name of the class.
        remark: what there is to say of it, or "".
    """

    path: Path
    split: str
    name: str
    remark: str = ""


@dataclass(frozen=True)
class Finding:
    """Something to look at.

    Attributes:
        kind: what it is.
        groups: the photos, each group to be looked at together; one photo each where each stands
            for itself.
        lines: what there is to say where there are no photos to show, a line each.
    """

    kind: Kind
    groups: tuple[tuple[Place, ...], ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Groups, or lines."""
        return len(self.groups) or len(self.lines)

    @property
    def photos(self) -> int:
        """Photos in all groups."""
        return sum(map(len, self.groups))


@dataclass(frozen=True)
class PhotoCheck:
    """A folder of photos, as it was found.

    Attributes:
        root: the folder.
        places: all photos, in the order of splits, classes and paths.
        counts: photos of each class in each split.
        formats: photos of each format that could be read.
        packshots: of each split, photos that training would cut out, by what they are cut out by.
        left_out: a line for each reason why something is not read.
        findings: what to look at, in the order of `Kind`.
        notes: what a reader of the findings has to know, a sentence each.
    """

    root: Path
    places: tuple[Place, ...]
    counts: Mapping[str, Mapping[str, int]]
    formats: Mapping[str, int]
    packshots: Mapping[str, Mapping[str, int]]
    left_out: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def readable(self) -> tuple[Place, ...]:
        """The photos that can be read."""
        unreadable = {
            place.path
            for finding in self.findings
            if finding.kind is Kind.UNREADABLE
            for (place,) in finding.groups
        }
        return tuple(place for place in self.places if place.path not in unreadable)

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have a folder; "all" where there are none."""
        return list(next(iter(self.counts.values()), {}))

    @property
    def totals(self) -> dict[str, int]:
        """Photos of each split."""
        of_split = Counter(place.split for place in self.places)
        return {split: of_split[split] for split in self.splits}

    @property
    def read(self) -> list[str]:
        """What is read and what is not, a line each."""
        formats = ", ".join(f"{count} {name}" for name, count in self.formats.items())
        cut = [
            f"{sum(by.values())} packshots{'' if split == 'all' else f' in {split}'}, told by "
            + ", ".join(f"{what} ({count})" for what, count in by.items())
            + ("" if split in ("validation", "test") else "; training lays them on fresh grounds")
            for split, by in self.packshots.items()
        ]
        return [f"read: {formats or 'nothing'}", *cut, *self.left_out]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; paths are relative to the folder."""
        return {
            "folder": printable(self.root.absolute()),
            "photos": len(self.places),
            "near_duplicate_bits": NEAR,
            "classes": self.counts,
            "formats": self.formats,
            "packshots": self.packshots,
            "left_out": self.left_out,
            "notes": self.notes,
            "findings": [
                {
                    "kind": finding.kind.name.lower(),
                    "title": finding.kind.title,
                    "count": finding.count,
                    "lines": finding.lines,
                    "groups": [[self._to_dict(place) for place in g] for g in finding.groups],
                }
                for finding in self.findings
            ],
        }

    def _to_dict(self, place: Place) -> dict[str, str]:
        found = {"file": self.name(place), "split": place.split, "class": place.name}
        return found | ({"remark": place.remark} if place.remark else {})

    def name(self, place: Place) -> str:
        """Return a photo's path below the folder, as text."""
        return printable(place.path.relative_to(self.root))


def check_photos(root: Path, workers: int) -> PhotoCheck:
    """Look at all photos below a folder of class folders, with splits or without.

    Args:
        root: the folder, as `experiments.data.folder.load_folder` takes it.
        workers: processes that decode photos.

    Raises:
        DataError: there is no such folder, its splits contradict each other, or it has no photos.
    """
    layout = read_layout(root)
    places = _places(layout)
    if not places:
        samples_of(layout)  # refuses a layout without photos, with what to do
    counts = _counts(layout)
    inspected = inspect_photos([place.path for place in places], workers)
    readable = [
        (place, facts) for place, facts in zip(places, inspected, strict=True) if not facts.problem
    ]
    found = [
        *_of_layout(layout),
        *_of_single_photos(places, inspected),
        *_of_copies(places),
        *_of_near_copies(readable),
        *_of_classes(counts),
    ]
    return PhotoCheck(
        root=root,
        places=places,
        counts=counts,
        formats=dict(Counter(facts.format for _, facts in readable).most_common()),
        packshots=_packshots(readable),
        left_out=tuple(describe(layout.left_out, root)),
        findings=in_order(found),
    )


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings in the order of `Kind`, without those that found nothing."""
    order = list(Kind)
    return tuple(sorted((f for f in findings if f.count), key=lambda f: order.index(f.kind)))


def _places(layout: Layout) -> tuple[Place, ...]:
    return tuple(
        Place(path, split, name)
        for split, part in _parts(layout)
        for name, paths in part.photos.items()
        for path in paths
    )


def _parts(layout: Layout) -> list[tuple[str, ClassFolders]]:
    if not layout.folders:
        return [("all", part) for part in layout.parts.values()]
    return [(split, layout.parts[split]) for split in _SPLITS if split in layout.parts]


def _counts(layout: Layout) -> dict[str, dict[str, int]]:
    parts = dict(_parts(layout))
    names = sorted({name for part in parts.values() for name in part.photos})
    return {
        name: {split: len(part.photos.get(name, ())) for split, part in parts.items()}
        for name in names
    }


def _of_layout(layout: Layout) -> Iterable[Finding]:
    try:
        samples_of(layout)
    except DataError as error:
        yield Finding(Kind.LAYOUT, lines=(str(error),))
    yield Finding(Kind.STRAYS, lines=tuple(layout.strays))
    missed = [item for item in layout.left_out if _missed(item)]
    yield Finding(Kind.NOT_READ, lines=tuple(describe(missed, layout.root)))


def _missed(item: LeftOut) -> bool:
    return item.expected_photo or item.why is Why.MASK


def _of_single_photos(places: Sequence[Place], inspected: Sequence[Inspected]) -> Iterable[Finding]:
    both = list(zip(places, inspected, strict=True))
    unreadable = [(place, facts.problem) for place, facts in both if facts.problem]
    readable = [(place, facts) for place, facts in both if not facts.problem]
    tiny = [
        (place, f"{facts.size[0]} x {facts.size[1]} pixels")
        for place, facts in readable
        if min(facts.size) < TINY
    ]
    plain = [(place, "") for place, facts in readable if facts.hash is None]
    for kind, found in ((Kind.UNREADABLE, unreadable), (Kind.TINY, tiny), (Kind.PLAIN, plain)):
        yield Finding(kind, tuple((_remarked(place, remark),) for place, remark in found))


def _remarked(place: Place, remark: str) -> Place:
    return Place(place.path, place.split, place.name, remark)


def _of_copies(places: Sequence[Place]) -> Iterable[Finding]:
    of_content: dict[str, list[Place]] = defaultdict(list)
    copies = find_copies(place.path for place in places)
    for place in places:
        if place.path in copies:
            of_content[copies[place.path]].append(place)
    kinds = Kind.COPIES_OF_LABELS, Kind.COPIES_OF_SPLITS, Kind.COPIES
    return _by_reach(of_content.values(), *kinds)


def _of_near_copies(readable: Sequence[tuple[Place, Inspected]]) -> Iterable[Finding]:
    """Find groups of near-duplicates; those of nothing but copies are told as such already."""
    hashed = [(place, facts.hash) for place, facts in readable if facts.hash is not None]
    groups = [
        [hashed[index][0] for index in group]
        for group in group_near([value for _, value in hashed])
    ]
    copies = find_copies(place.path for group in groups for place in group)
    distinct = [g for g in groups if len({copies.get(place.path, place) for place in g}) > 1]
    return _by_reach(distinct, Kind.NEAR_OF_LABELS, Kind.NEAR_OF_SPLITS, Kind.NEAR)


def _by_reach(
    groups: Iterable[Sequence[Place]], labels: Kind, splits: Kind, one_class: Kind
) -> list[Finding]:
    """Tell groups under several labels, of several splits and of one class of one split apart."""
    found: dict[Kind, list[tuple[Place, ...]]] = {labels: [], splits: [], one_class: []}
    for group in groups:
        if len({place.name for place in group}) > 1:
            found[labels].append(tuple(group))
        elif len({place.split for place in group}) > 1:
            found[splits].append(tuple(group))
        else:
            found[one_class].append(tuple(group))
    return [Finding(kind, tuple(groups)) for kind, groups in found.items()]


def _of_classes(counts: Mapping[str, Mapping[str, int]]) -> Iterable[Finding]:
    trained = {name: of.get("train", of.get("all", 0)) for name, of in counts.items()}
    empty = [name for name, of in counts.items() if not any(of.values())]
    untrained = [name for name, count in trained.items() if not count and name not in empty]
    untested = [name for name, of in counts.items() if not of.get("test", 1) and name not in empty]
    yield Finding(Kind.EMPTY, lines=tuple(empty))
    yield Finding(Kind.FEW, lines=tuple(few_photos(trained)))
    yield Finding(Kind.UNTRAINED, lines=tuple(untrained))
    yield Finding(Kind.UNTESTED, lines=tuple(untested))


def _packshots(readable: Sequence[tuple[Place, Inspected]]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for place, facts in readable:
        if facts.cut_out is not None:
            found[place.split][what_tells(Sample(place.path, 0, facts.cut_out))] += 1
    return {split: dict(by) for split, by in found.items()}
