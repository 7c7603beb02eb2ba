"""A check of photos as one HTML file: what was found, its photos side by side."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.data.names import printable
from experiments.data.photo_check import Finding, PhotoCheck, Place
from experiments.report.figures import thumbnail
from experiments.report.templates import environment
from experiments.storage import save_text

_GROUPS = 24
_PHOTOS = 12
_SINGLE_PHOTOS = 60  # of those that each stand for themselves


@dataclass(frozen=True)
class ShownPhoto:
    """A photo on the page: its place, its path as text, and a data URI; None if it has none."""

    place: Place
    file: str
    uri: str | None


@dataclass(frozen=True)
class ShownGroup:
    """Photos side by side, and how many more are in the group."""

    photos: tuple[ShownPhoto, ...]
    more: int


@dataclass(frozen=True)
class ShownFinding:
    """A section of the page.

    Attributes:
        anchor: id of the section.
        finding: what was found.
        groups: photos that are shown.
        more: number of groups that are not.
    """

    anchor: str
    finding: Finding
    groups: tuple[ShownGroup, ...]
    more: int


def write_check_page(check: PhotoCheck, path: Path) -> None:
    """Write a check as one HTML file that needs nothing beside it.

    Raises:
        OSError: it cannot be written.
    """
    each = [sum(counts.values()) for counts in check.counts.values()]
    page = (
        environment()
        .get_template("check.html.jinja")
        .render(
            title=f"Photos of {printable(check.root.resolve().name)}",
            date=datetime.date.today().isoformat(),
            folder=printable(check.root.absolute()),
            check=check,
            each=(min(each), max(each)),
            findings=[_shown(check, finding) for finding in check.findings],
        )
    )
    save_text(page, path)


def _shown(check: PhotoCheck, finding: Finding) -> ShownFinding:
    anchor = finding.kind.name.lower().replace("_", "-")
    singles = [place for group in finding.groups if len(group) == 1 for place in group]
    if len(singles) == len(finding.groups) > 0:
        return ShownFinding(anchor, finding, (_group(check, singles, _SINGLE_PHOTOS),), 0)
    shown = tuple(_group(check, group, _PHOTOS) for group in finding.groups[:_GROUPS])
    return ShownFinding(anchor, finding, shown, len(finding.groups) - len(shown))


def _group(check: PhotoCheck, places: Sequence[Place], most: int) -> ShownGroup:
    photos = [ShownPhoto(p, check.name(p), thumbnail(p.path)) for p in places[:most]]
    return ShownGroup(tuple(photos), len(places) - len(photos))
