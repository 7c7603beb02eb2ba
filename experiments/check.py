"""Look at photos before training on them: copies, near-duplicates, odd photos, wrong labels.

    python experiments/check.py PHOTOS --output runs/check
    python experiments/check.py PHOTOS --model runs/mine/cells/.../lca-seed0-*.model

PHOTOS is a folder as finetune.py takes it. What is found is said on the terminal, shown in
check.html with the photos side by side, and listed in check.json. With --model, photos that the
model was not trained on and whose label it doubts are found as well. Exit status: 0 when there is
nothing to look at, 1 when there is, 2 when the command line, the folder or the model cannot be used
or the output cannot be written, 130 when interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if not __package__:  # run as a file, from whatever folder: the packages are beside its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.console import printable, set_up_console
from experiments.data.own_output import mark_output
from experiments.outputs import check_file, check_folder, missing_packages
from experiments.storage import save_json
from experiments.training.device import Precision, cores, resolve_compute, share_cores
from experiments.training.memory import NoRoomError, killed_workers_explained

if TYPE_CHECKING:
    from experiments.data.photo_check import Finding, PhotoCheck, Place

logger = logging.getLogger(__name__)

JSON_FILE = "check.json"
PAGE_FILE = "check.html"

_INTERRUPTED = 130
_LISTED = 3  # groups of a finding on the terminal
_LISTED_PHOTOS = 3  # of a group


class OptionsError(ValueError):
    """The command line cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Options:
    """Look at photos before training on them."""

    photos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS")]
    """A folder of photos per product, or train/ and test/ (and validation/) with such folders."""
    output: Path = Path("runs/check")
    """Folder of what was found: check.html and check.json, replaced where they are there."""
    model: str | None = None
    """Folder of a stored classifier of these products, <output>/cells/.../*.model; or
    hf-hub:OWNER/NAME: adds photos whose label it doubts, of those it was not trained on."""
    device: str = "auto"
    """Of the model: auto, cpu, cuda, cuda:N or mps."""
    precision: Precision = "auto"
    """Of the model's matrix products; auto: bfloat16 or float16 where the device has it."""
    workers: int | None = None
    """Processes that decode photos; default: one per core, 16 at most."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise OptionsError(f"--workers is {self.workers}; expected 0 or more")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what `arguments` (default: the command line) ask for; return the exit status."""
    set_up_console()
    try:
        with killed_workers_explained():
            return _check(tyro.cli(Options, args=arguments, prog="check.py"))
    except (ValueError, OSError, NoRoomError) as error:
        logger.error("error: %s", error)
        return 2
    except BrokenProcessPool:
        logger.error("error: a process that decodes photos was killed; use fewer --workers")
        return 2
    except KeyboardInterrupt:
        logger.error("interrupted; nothing was written")
        return _INTERRUPTED


def _check(options: Options) -> int:
    _check_packages(options)
    from experiments.data.photo_check import check_photos
    from experiments.report.check_page import write_check_page

    check_folder(options.output, "--output")
    for name in (JSON_FILE, PAGE_FILE):
        check_file(options.output / name, "--output")
    workers = min(16, cores()) if options.workers is None else options.workers
    check = check_photos(options.photos, workers)
    if options.model is not None:
        from experiments.deploy.wrong_labels import add_wrong_labels

        compute = resolve_compute(options.device, options.precision)
        check = add_wrong_labels(
            check, options.model, compute, share_cores(compute, options.workers)
        )
    if not options.output.exists():
        mark_output(options.output)
    save_json(check.to_dict(), options.output / JSON_FILE)
    write_check_page(check, options.output / PAGE_FILE)
    for line in _in_words(check):
        print(printable(line))
    print(f"page: {printable((options.output / PAGE_FILE).absolute())}")
    return 1 if check.findings else 0


def _check_packages(options: Options) -> None:
    needed = ["imagehash", "jinja2", "matplotlib", *(["cleanlab"] if options.model else [])]
    missing = missing_packages(needed)
    if missing:
        raise OptionsError(
            f"{' and '.join(missing)} cannot be imported; pip install "
            '"lca-fused[check,experiments]" brings what checking photos needs'
        )


def _in_words(check: PhotoCheck) -> Iterator[str]:
    """Return what was found, for the terminal."""
    splits = [f"{count} {split}" for split, count in check.totals.items() if split != "all"]
    yield f"{len(check.places)} photos of {len(check.counts)} classes" + (
        f": {', '.join(splits)}" if splits else ", not split"
    )
    yield from check.read
    yield from check.notes
    for finding in check.findings:
        yield ""
        yield f"{finding.kind.title}: {_counted(finding)}. {finding.kind.advice}"
        groups = [_group(check, group) for group in finding.groups[:_LISTED]]
        yield from (f"  {line}" for line in groups or finding.lines[:_LISTED])
        if finding.count > _LISTED:
            yield f"  and {finding.count - _LISTED} more"
    yield ""
    yield "nothing to look at" if not check.findings else f"{len(check.findings)} kinds of findings"


def _counted(finding: Finding) -> str:
    if finding.photos <= finding.count:
        return str(finding.count)
    return f"{finding.photos} in {finding.count} group{'s' * (finding.count > 1)}"


def _group(check: PhotoCheck, group: Sequence[Place]) -> str:
    """Return the photos of a group in a line."""
    named = [
        check.name(place) + (f" ({place.remark})" if place.remark else "")
        for place in group[:_LISTED_PHOTOS]
    ]
    more = f" and {len(group) - _LISTED_PHOTOS} more" if len(group) > _LISTED_PHOTOS else ""
    return ", ".join(named) + more


if __name__ == "__main__":
    sys.exit(main())
