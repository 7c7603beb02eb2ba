"""Say which products photos show.

    python experiments/predict.py runs/cells/.../lca-seed0-*.model photos/ shelf.jpg
    python experiments/predict.py MODEL photos/ --format jsonl --output predictions.jsonl
    python experiments/predict.py MODEL photos/ --explain pictures/

Photos go through what the model's test photos went through. Every row is written as soon as it is
computed; photos that cannot be read, or are of a format that is not, are rows with an error, and
what else is left out is counted in the log (docs/experiment.md, "What is read"). Exit status: 0
when every photo was read, 1 when some could not be, 2 when the command line or the model cannot be
used, memory ran out or a worker was killed, 130 when interrupted, 141 when nobody reads the rows
any more (`... | head`).
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TextIO

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

if not __package__:  # run as a file, from whatever folder: the packages are beside its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.console import set_up_console
from experiments.deploy.gallery_folder import gallery_photos
from experiments.deploy.inference import MEGAPIXEL, PhotoReader, check_megapixels, find_photos
from experiments.deploy.prediction_rows import (
    CsvWriter,
    JsonLinesWriter,
    NoReaderError,
    PhotoRow,
    RowWriter,
)
from experiments.outputs import check_folder
from experiments.training.device import Compute, Precision, resolve_compute, share_cores
from experiments.training.memory import WorkerKilledError, killed_workers_explained
from experiments.training.shared_memory import workers_that_fit
from lca_fused import load_classifier
from lca_fused.classifier import Classifier
from lca_fused.description import described
from lca_fused.prediction import Prediction, PredictionError, predictions_of

logger = logging.getLogger(__name__)

# As a shell reports a program that a signal ended: 128 + SIGINT, 128 + SIGPIPE. Not 0, as photos
# may be left without a row.
_INTERRUPTED = 130
_NO_READER = 141


class OptionsError(ValueError):
    """The command line cannot be used; the message says what to change."""


class Pictures(Protocol):
    """Where pictures of explained photos go."""

    def save(
        self, paths: Sequence[Path], images: Tensor, predictions: Sequence[Prediction]
    ) -> dict[Path, str]:
        """Explain what is said of n photos: (n, 3, S, S), normalised, on the model's device.

        Return the photos without a picture, and why.
        """


@dataclass(frozen=True)
class Options:
    """What to predict, with which model, and where the rows go."""

    model: tyro.conf.Positional[str]
    """Folder of a stored classifier, <output>/cells/.../*.model; or hf-hub:OWNER/NAME."""
    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Photos, and folders that are searched for photos to any depth; each photo counts once."""
    top_k: int = 5
    """Classes a photo, the likeliest first."""
    format: Literal["csv", "jsonl"] = "csv"
    """csv: columns file, name (unknown where not accepted), accepted, class_1, probability_1, ...
    error; jsonl: a JSON object a line."""
    output: Path | None = None
    """File of the rows, which must not be there yet; default: standard output."""
    batch_size: int = 32
    """Photos that go through the network at once."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Precision = "auto"
    """Of matrix products; auto: bfloat16 or float16 where the device has it in hardware."""
    explain: Path | None = None
    """Folder for a picture per photo: its heat map and top local concepts; for LCA models. Of a
    gallery, the most alike enrolled photo is below it."""
    workers: int | None = None
    """Processes that decode photos; default: half the cores, 8 at most; 0: none."""
    max_megapixels: float = 100.0
    """Larger photos are refused; a worker needs 12 to 19 MB per megapixel; at most 178."""

    def __post_init__(self) -> None:
        if not self.photos:
            raise OptionsError("no photos were given; name at least one photo or folder")
        for name, least in (("top_k", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                option = f"--{name.replace('_', '-')}"
                raise OptionsError(f"{option} is {getattr(self, name)}; expected at least {least}")
        if self.workers is not None and self.workers < 0:
            raise OptionsError(f"--workers is {self.workers}; expected 0 or more")
        check_megapixels(self.max_megapixels)


class Predictor:
    """A classifier on its device.

    Args:
        classifier: the classifier; it is moved to the device.
        compute: device and precision to compute with.
        top_k: number of classes per photo; all of them where there are fewer.
    """

    def __init__(self, classifier: Classifier, compute: Compute, top_k: int) -> None:
        self._description = described(classifier)
        self.compute = compute
        self.top_k = top_k
        self._model = classifier.to(compute.device).to(memory_format=torch.channels_last)

    def predict(self, paths: Sequence[Path], images: Tensor) -> list[PhotoRow]:
        """Return a row per photo.

        Args:
            paths: files of n photos.
            images: the photos, (n, 3, S, S), normalised, on the device.
        """
        if not paths:
            return []
        with torch.inference_mode(), self.compute.autocast():
            logits = self._model(images)
        return [self._row(path, logit) for path, logit in zip(paths, logits.split(1), strict=True)]

    def _row(self, path: Path, logits: Tensor) -> PhotoRow:
        try:
            (prediction,) = predictions_of(logits, self._description, self.top_k)
        except PredictionError:
            return PhotoRow(
                path, error="the network's output is not finite; try --precision float32"
            )
        return PhotoRow(path, prediction)


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict what `arguments` (default: the command line) ask for; return the exit status."""
    set_up_console()
    options = tyro.cli(Options, args=arguments, prog="predict.py")
    try:
        return _predict(options)
    except NoReaderError:
        _discard_standard_output()
        return _NO_READER
    except KeyboardInterrupt:
        logger.error("interrupted before the first row")
        return _INTERRUPTED


def _predict(options: Options) -> int:
    with ExitStack() as stack:
        try:
            classifier = load_classifier(options.model)
            compute = resolve_compute(options.device, options.precision)
            photos = find_photos(options.photos)
            workers = _workers(options, classifier, compute, len(photos))
            pictures = _pictures(classifier, options)
            rows = stack.enter_context(_rows(options, classifier))
        except (ValueError, OSError, ImportError) as error:
            logger.error("error: %s", error)
            if isinstance(error, OSError):
                _discard_rows(options)
            return 2
        try:
            with killed_workers_explained():
                return _predict_all(options, classifier, compute, photos, workers, rows, pictures)
        except WorkerKilledError as error:
            logger.error("error: %s", error)
            logger.error("the rows written so far are kept")
            return 2
        except torch.cuda.OutOfMemoryError as error:
            logger.error("error: %s", error)
            logger.error("the rows written so far are kept; use a smaller --batch-size")
            return 2
        except KeyboardInterrupt:
            logger.error("interrupted; the rows written so far are kept")
            return _INTERRUPTED
        except OSError as error:
            logger.error("error: the rows cannot be written any more: %s", error)
            _discard_rows(options)
            return 2


def _predict_all(
    options: Options,
    classifier: Classifier,
    compute: Compute,
    photos: Sequence[Path],
    workers: int,
    rows: RowWriter,
    pictures: Pictures | None,
) -> int:
    predictor = Predictor(classifier, compute, options.top_k)
    max_pixels = round(options.max_megapixels * MEGAPIXEL)
    reader = PhotoReader(photos, described(classifier).preprocessing, max_pixels)
    failed, incomplete, start = 0, 0, time.perf_counter()
    with tqdm(total=len(photos), unit="img", desc="predicting") as bar:
        for batch in reader.batches(options.batch_size, workers):
            images = batch.images.to(compute.device, memory_format=torch.channels_last)
            predictions = predictor.predict(batch.readable, images)
            errors = [PhotoRow(path, error=reason) for path, reason in batch.unreadable.items()]
            unwritten = rows.write(_in_order(batch.paths, predictions + errors))
            failed += _report(predictions + errors)
            incomplete += _list(unwritten)
            if pictures is not None:
                incomplete += _list(_explain(pictures, predictions, images))
            bar.update(len(batch.paths))
    rate = len(photos) / (time.perf_counter() - start)
    logger.info("%d photos, %d of them without a prediction, %.1f img/s", len(photos), failed, rate)
    if incomplete:
        logger.error("%d rows or pictures are missing, as listed above", incomplete)
    return 1 if failed or incomplete else 0


def _workers(options: Options, classifier: Classifier, compute: Compute, photos: int) -> int:
    # Starting processes takes longer than a batch of photos.
    few = photos <= options.batch_size and options.workers is None
    return workers_that_fit(
        share_cores(compute, 0 if few else options.workers),
        options.workers,
        photos=options.batch_size,
        image_size=described(classifier).preprocessing.image_size,
    )


def _explain(
    pictures: Pictures, predictions: Sequence[PhotoRow], images: Tensor
) -> dict[Path, str]:
    """Save a picture per photo, of its likeliest class; return what went wrong."""
    readable = {
        index: row.prediction for index, row in enumerate(predictions) if row.prediction is not None
    }
    paths = [predictions[index].path for index in readable]
    return pictures.save(paths, images[list(readable)], list(readable.values()))


def _in_order(paths: Sequence[Path], predictions: Sequence[PhotoRow]) -> list[PhotoRow]:
    by_path = {prediction.path: prediction for prediction in predictions}
    return [by_path[path] for path in paths]


def _report(predictions: Sequence[PhotoRow]) -> int:
    """Log the photos without a prediction; return how many there are."""
    return _list({p.path: p.error for p in predictions if p.error is not None})


def _list(problems: Mapping[Path, str]) -> int:
    """Log what is wrong with which photo; return how many there are."""
    for path, problem in problems.items():
        tqdm.write(f"{path}: {problem}", file=sys.stderr)
    return len(problems)


def _pictures(classifier: Classifier, options: Options) -> Pictures | None:
    if options.explain is None:
        return None
    # Here, as nothing else needs matplotlib.
    try:
        from experiments.deploy.explanation_images import ExplanationImages
    except ImportError as error:
        raise OptionsError(
            f'--explain draws pictures, which needs matplotlib ({error}): pip install "lca-fused'
            '[plots]", or leave --explain out'
        ) from error

    return ExplanationImages(classifier, options.explain, gallery_photos(options.model))


@contextmanager
def _rows(options: Options, classifier: Classifier) -> Iterator[RowWriter]:
    """Open what the rows are written to."""
    k = min(options.top_k, len(described(classifier).classes))
    with _opened(options.output) as file:
        yield CsvWriter(file, k) if options.format == "csv" else JsonLinesWriter(file)


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """Open a new file, or standard output; names of photos may hold any bytes."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(newline="")
        yield sys.stdout
        return
    check_folder(path.parent, "the folder of --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("x", encoding="utf-8", errors="backslashreplace", newline="")
    except FileExistsError as error:
        raise OptionsError(
            f"--output {path} is there already and is not overwritten; remove it or name another"
        ) from error
    try:
        yield file
    finally:
        with suppress(OSError):  # every row is flushed already, or the disk was full then
            file.close()


def _discard_rows(options: Options) -> None:
    """Keep standard output's disk being full from being found once more as the program ends."""
    if options.output is None:
        _discard_standard_output()


def _discard_standard_output() -> None:
    """Let the interpreter flush, as it ends, what could not be written."""
    with suppress(OSError):  # not a stream of the system
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
