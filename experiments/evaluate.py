"""Say how good a stored classifier or gallery is on labelled photos, and when it is to say unknown.

    python experiments/evaluate.py MODEL PHOTOS
    python experiments/evaluate.py MODEL PHOTOS --precision 0.95 --store
    python experiments/evaluate.py MODEL NEW_PHOTOS --stored
    python experiments/evaluate.py MODEL PHOTOS --draws 100   # do the halves decide?

PHOTOS holds a folder of photos per product, which the classifier was not trained on, or folders
test/ and validation/ of such. Temperature and threshold are of validation photos (--validation, or
PHOTOS/validation/; else of half of PHOTOS, drawn by a seed), everything reported is of the others.
The threshold is one that validation photos prove the precision of. Folders that are no class of the
classifier hold unknown products: accepting a photo of them is an error. Exit status: 0 when all was
done, 1 when photos could not be read or the precision was not proven, 2 when the command line, the
photos or the model cannot be used, 130 when interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from tqdm import tqdm

if not __package__:  # run as a file, from whatever folder: the packages are beside its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.checksum import content_digests
from experiments.command_lines import changed_options, command_line
from experiments.console import set_up_console
from experiments.data.product_folders import find_products
from experiments.data.split_folders import find_split_folders
from experiments.deploy.deciding import decide, in_words
from experiments.deploy.gallery_folder import changing
from experiments.deploy.halves import draw_halves
from experiments.deploy.halves import in_words as draws_in_words
from experiments.deploy.inference import MAX_MEGAPIXELS, MEGAPIXEL, PhotoReader
from experiments.deploy.labelled_photos import LabelledPhotos, look_at
from experiments.outputs import make_folder
from experiments.report.evaluation import Evaluation
from experiments.report.evaluation_page import write_evaluation_page
from experiments.results import trained_contents
from experiments.storage import save_json
from experiments.training.device import Compute, resolve_compute, share_cores
from experiments.training.memory import NoRoomError, killed_workers_explained
from experiments.training.shared_memory import workers_that_fit
from lca_fused import load_classifier
from lca_fused.classifier import Classifier
from lca_fused.decision import Decision
from lca_fused.description import described
from lca_fused.pretrained import save_decision

logger = logging.getLogger(__name__)

_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_MAX_PIXELS = MAX_MEGAPIXELS * MEGAPIXEL  # what training reads is read here
_HUB = "hf-hub:"
_LISTED = 10


class EvaluationError(ValueError):
    """What is asked for cannot be done; the message says what to change."""


@dataclass(frozen=True)
class Options:
    """Which classifier is held against which photos, and what it is to prove."""

    model: tyro.conf.Positional[str]
    """Folder of a stored classifier or gallery; or hf-hub:OWNER/NAME."""
    photos: tyro.conf.Positional[Path]
    """A folder of photos per product, or test/ and perhaps validation/ with such folders."""
    validation: Path | None = None
    """A folder of photos per product to set temperature and threshold on; default: PHOTOS's
    validation/, or else half of PHOTOS."""
    precision: float = 0.99
    """Share of right answers among those accepted, which the threshold is to have."""
    score: Literal["max-softmax", "energy", "max-logit"] = "max-softmax"
    """What is compared with the threshold; max-logit of a gallery is a cosine. How they compare:
    docs/decision.md."""
    store: bool = False
    """Write temperature and threshold into MODEL's config.json: predict.py then goes by them."""
    stored: bool = False
    """Judge the temperature and threshold that are in MODEL, on all photos."""
    seed: int = 0
    """Of the halves."""
    draws: int = 0
    """Halve PHOTOS (its test/, where it has one) so many times as well, and say how often a
    temperature and a threshold of one half held on the other."""
    output: Path = Path("runs/evaluation")
    """Folder of evaluation.html and evaluation.json; those of an earlier run are replaced."""
    batch_size: int = 32
    """Photos that go through the network at once."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    workers: int | None = None
    """Processes that decode photos; default: half the cores, 8 at most; 0: none."""

    def __post_init__(self) -> None:
        if not 0 < self.precision < 1:
            raise EvaluationError(
                f"--precision is {self.precision:g}; expected above 0 and below 1, such as 0.99"
            )
        if self.store and self.stored:
            raise EvaluationError("--store and --stored are both given; leave one of them out")
        if self.store and self.model.startswith(_HUB):
            raise EvaluationError(
                f"--store writes into a folder, and {self.model} is on the Hub; save it to a "
                "folder with save_pretrained, and name that"
            )
        if self.draws < 0:
            raise EvaluationError(f"--draws is {self.draws}; expected 0 or more")
        if self.stored and (without := self._of_no_use_to_stored):
            raise EvaluationError(
                "--stored judges the temperature and threshold there are, which has no use for "
                f"{without}; leave out --stored, or the others"
            )
        if self.batch_size < 1:
            raise EvaluationError(f"--batch-size is {self.batch_size}; expected at least 1")
        if self.workers is not None and self.workers < 0:
            raise EvaluationError(f"--workers is {self.workers}; expected 0 or more")

    @property
    def _of_no_use_to_stored(self) -> str:
        settings = ("validation", "precision", "score", "seed", "draws")
        changed = [name for name in settings if getattr(self, name) != getattr(Options, name)]
        return ", ".join(f"--{name}" for name in changed)


class Reader:
    """Reads labelled photos for one classifier, without those that it was trained on.

    Attributes:
        failed: number of photos that could not be read.
        notes: sentences on what was left out.
    """

    def __init__(self, classifier: Classifier, options: Options) -> None:
        self.failed = 0
        self.notes: list[str] = []
        self._trained = trained_contents(options.model) or set()
        self._compute = resolve_compute(options.device, "auto")
        self._classifier = classifier
        self._options = options

    def read(self, root: Path) -> LabelledPhotos:
        """Return what the classifier says of the photos in a folder of folders.

        Raises:
            ValueError: there are no such folders, none is of a class, or the classifier was trained
                on all of the photos.
        """
        product_of = find_products(root)
        _check_names(set(product_of.values()), described(self._classifier).classes, root)
        preprocessing = described(self._classifier).preprocessing
        reader = PhotoReader(list(product_of), preprocessing, _MAX_PIXELS)
        with tqdm(total=len(product_of), unit="img", desc=root.name) as bar:

            def progress(photos: int, unreadable: Mapping[Path, str]) -> None:
                self.failed += len(unreadable)
                for path, reason in unreadable.items():
                    tqdm.write(f"{path}: {reason}", file=sys.stderr)
                bar.update(photos)

            photos = look_at(
                self._classifier,
                product_of,
                self._compute,
                reader,
                batch_size=self._options.batch_size,
                workers=_workers(self._options, self._compute, preprocessing.image_size),
                progress=progress,
            )
        return self._not_trained_on(photos, root)

    def _not_trained_on(self, photos: LabelledPhotos, root: Path) -> LabelledPhotos:
        new = np.array([d not in self._trained for d in content_digests(photos.paths)], np.bool_)
        if new.all():
            return photos
        if not new.any():
            raise EvaluationError(
                f"the classifier was trained on all {len(photos)} photos in {root}, of which it "
                "knows the answers; give photos that it has not seen"
            )
        self.notes.append(
            f"the classifier was trained on {len(photos) - new.sum()} of the {len(photos)} photos "
            f"in {root}, which are left out"
        )
        return photos.of(new)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate what `arguments` (default: the command line) ask for; return the exit status."""
    set_up_console()
    try:
        options = tyro.cli(Options, args=arguments, prog="evaluate.py")
        with killed_workers_explained():
            return _evaluate(options)
    except (ValueError, OSError, NoRoomError) as error:
        logger.error("error: %s", error)
        return 2
    except KeyboardInterrupt:
        logger.error("interrupted; nothing was stored")
        return _INTERRUPTED


def _evaluate(options: Options) -> int:
    classifier = load_classifier(options.model)
    make_folder(options.output, "--output")
    reader = Reader(classifier, options)
    stored = described(classifier).decision
    if options.stored and stored == Decision():
        raise EvaluationError(
            f"{options.model} has no temperature and threshold stored; leave --stored out to "
            "see which would do, and give --store to write them"
        )
    photos = reader.read(_folders(options)[0])
    if options.stored:
        decision, tested, proven = stored, photos, True
        notes = [*reader.notes, "temperature and threshold are those that were stored"]
    else:
        validation, tested, note = _parts(reader, photos, options)
        decision, proof = decide(validation, options.score, options.precision)
        notes = [
            *reader.notes,
            note,
            *in_words(proof, len(validation)),
            *_of_draws(photos, options),
        ]
        proven = proof.holds
        if validation.of(validation.known).right.all():
            notes.append(
                "all of these that are of known products are recognised, which tells of no "
                "temperature: probabilities stay as they are"
            )
    if not tested.known.any():
        raise EvaluationError("no photo of a known product is left to report on; add photos")
    evaluation = Evaluation(
        described(classifier).classes, decision, tested.logits, tested.labels, tested.names
    )
    _write(options, evaluation, notes)
    for line in [*notes, *_summary(evaluation)]:
        logger.info("%s", line)
    if options.store and stored.threshold is not None and not proven:
        logger.error(
            "nothing was stored: %s keeps the threshold that it has, without which it would accept "
            "every photo; give more photos, ask for a lower --precision, or take decision out of "
            "its config.json first",
            options.model,
        )
    elif options.store:
        _store(classifier, decision, Path(options.model))
    elif not options.stored:
        logger.info("nothing was changed in %s; --store has predict.py go by this", options.model)
    return 0 if proven and not reader.failed else 1


def _parts(
    reader: Reader, photos: LabelledPhotos, options: Options
) -> tuple[LabelledPhotos, LabelledPhotos, str]:
    """Return validation photos, those to report on, and a sentence on where they are from."""
    root, for_validation = _folders(options)
    if for_validation is None:
        validation, tested = photos.halves(options.seed)
        note = (
            f"there are no validation photos: temperature and threshold are of {len(validation)} "
            f"of these photos, drawn by seed {options.seed}, and what follows is of the other "
            f"{len(tested)}"
        )
    else:
        validation, tested = reader.read(for_validation), photos
        note = (
            f"temperature and threshold are of the {len(validation)} photos in {for_validation}, "
            f"what follows is of the {len(tested)} in {root}"
        )
    contents = set(content_digests(validation.paths))
    copies = sum(content in contents for content in content_digests(tested.paths))
    if copies:
        note += (
            f"; {copies} of them are among the validation photos too, byte for byte, so that it "
            "looks better than it is"
        )
    if not validation.known.any():
        raise EvaluationError(
            f"there are {len(validation)} validation photos, none of a known product; add photos"
        )
    return validation, tested, note


def _of_draws(photos: LabelledPhotos, options: Options) -> list[str]:
    """Return what came of drawing halves many times, where that is asked for."""
    if not options.draws:
        return []
    drawn = draw_halves(photos, options.score, options.precision, options.draws)
    return draws_in_words(drawn, options.precision)


def _folders(options: Options) -> tuple[Path, Path | None]:
    """Return the folder to report on, and that of validation photos if there is one."""
    splits = find_split_folders(options.photos, training=False)
    if splits and "test" not in splits:
        raise EvaluationError(
            f"PHOTOS {options.photos} has {', '.join(f.name for f in splits.values())} but no "
            "test; name the folder to report on"
        )
    return splits.get("test", options.photos), options.validation or splits.get("validation")


def _check_names(names: set[str], classes: Sequence[str], root: Path) -> None:
    others = sorted(names - set(classes))
    if len(others) == len(names):
        raise EvaluationError(
            f"no folder of {root} is a product of the classifier ({', '.join(classes[:_LISTED])}, "
            f"...), but {', '.join(others[:_LISTED])}; name the folders as its classes are named"
        )
    if others:
        logger.warning(
            "%s: %d folders are no product of the classifier, so their photos are of unknown "
            "products: %s",
            root,
            len(others),
            ", ".join(others),
        )


def _workers(options: Options, compute: Compute, image_size: int) -> int:
    return workers_that_fit(
        share_cores(compute, options.workers),
        options.workers,
        photos=options.batch_size,
        image_size=image_size,
    )


def _summary(evaluation: Evaluation) -> list[str]:
    before, after = (evaluation.calibration_error(calibrated=done) for done in (False, True))
    decision = evaluation.decision
    lines = [
        f"accuracy {evaluation.accuracy}",
        f"expected calibration error {before:.4f}, with temperature {decision.temperature:.3f} "
        f"{after:.4f}",
    ]
    if decision.threshold is not None:
        lines.append(
            f"accepted {evaluation.coverage} of known products, right of those accepted "
            f"{evaluation.precision}"
        )
    if evaluation.unknown_let_through.of:
        lines.append(f"accepted {evaluation.unknown_let_through} of unknown products")
    lines += [
        f"{name}: AUROC {measured['auroc']:.3f}, {100 * measured['let_through']:.1f} % of unknown "
        "products let through at 95 % of known kept"
        for name, measured in evaluation.rejection.items()
    ]
    return lines


def _write(options: Options, evaluation: Evaluation, notes: Sequence[str]) -> None:
    words = changed_options(options, Options(options.model, options.photos))
    command = command_line("evaluate.py", _absolute(options.model), options.photos, *words)
    page, values = options.output / "evaluation.html", options.output / "evaluation.json"
    write_evaluation_page(evaluation, notes, Path(options.model).name, command, page)
    save_json({"command": command, "notes": list(notes)} | evaluation.to_dict(), values)
    logger.info("written to %s", page.absolute())


def _absolute(model: str) -> str | Path:
    return model if model.startswith(_HUB) else Path(model)


def _store(classifier: Classifier, decision: Decision, folder: Path) -> None:
    with changing(folder):
        save_decision(decision, described(classifier).classes, folder)
    logger.info("stored; go on with:\n  %s PHOTO", command_line("predict.py", folder))


if __name__ == "__main__":
    sys.exit(main())
