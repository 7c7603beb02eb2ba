"""Write a stored model in formats that run without this project.

    python experiments/export.py runs/cells/.../lca-seed0-*.model --output shipped
    python experiments/export.py MODEL --output shipped --formats onnx --photos photos/

DIR then holds model.onnx (any number of photos, standard operators), model.pt2 (torch.export),
model.safetensors (the weights) and model.json: classes, preprocessing, versions, checksums. Each
format is held against the model on photos before it gets its name; one that differs by more than
the tolerance or names another class is refused and leaves no file. Exit status: 0 when all formats
were written, 1 when one differs, 2 when the command line or the model cannot be used.
"""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor

if not __package__:  # run as a file, from whatever folder: the packages are beside its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.console import set_up_console
from experiments.deploy.export_formats import FORMATS, Classify, Format
from experiments.deploy.export_manifest import describe
from experiments.deploy.inference import MEGAPIXEL, PhotoReader, find_photos
from experiments.outputs import check_folder, check_space, missing_packages
from experiments.storage import save_json
from lca_fused import Classifier, load_classifier
from lca_fused.description import described

logger = logging.getLogger(__name__)

_GENERATED = 8
_BATCH_SIZES = (1, 16)  # of the first batch and of the others: the number of photos is free
_MAX_PIXELS = 100 * MEGAPIXEL


class ExportError(ValueError):
    """The command line cannot be used; the message says what to change."""


class FormatError(RuntimeError):
    """A model cannot be written in a format."""


class DisagreementError(RuntimeError):
    """An exported file does not say what the model says."""


@dataclass(frozen=True)
class Options:
    """Which model is written where, and how close it has to be."""

    model: tyro.conf.Positional[str]
    """Folder of a stored classifier, <output>/cells/.../*.model; or hf-hub:OWNER/NAME."""
    output: Path
    """Folder of the files; an earlier export in it is replaced, and has to be in each format."""
    formats: tuple[Literal["onnx", "torch-export", "safetensors"], ...] = (
        "onnx",
        "torch-export",
        "safetensors",
    )
    """What to write."""
    photos: Path | None = None
    """Photo or folder of photos the files are held against the model on; default: noise."""
    tolerance: float = 1e-4
    """Greatest difference of a logit that is accepted."""

    def __post_init__(self) -> None:
        if not self.formats:
            raise ExportError(f"--formats is empty; expected from {', '.join(FORMATS)}")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ExportError(f"--tolerance is {self.tolerance}; expected 0 or more")


@dataclass(frozen=True)
class Agreement:
    """How close an exported file is to the model.

    Attributes:
        photos: number of photos that the file was tried on.
        max_logit_difference: greatest absolute difference of a logit.
        other_class: number of photos that it names another class for.
    """

    photos: int
    max_logit_difference: float
    other_class: int

    def __str__(self) -> str:
        return (
            f"max logit difference {self.max_logit_difference:.2g}, "
            f"top-1 identical on {self.photos - self.other_class} of {self.photos} photos"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Export what `arguments` (default: the command line) ask for; return the exit status."""
    set_up_console()
    try:
        logging.getLogger("onnxscript").setLevel(logging.WARNING)
        logging.getLogger("onnx_ir").setLevel(logging.WARNING)
        options = tyro.cli(Options, args=arguments, prog="export.py")
        _check_packages(options.formats)
        check_folder(options.output, "--output")
        classifier = load_classifier(options.model)
        _check_space(classifier, options)
        images = list(_batches(_images(classifier, options.photos)))
        export(classifier, options, images)
    except (DisagreementError, FormatError) as error:
        logger.error("error: %s", error)
        return 1
    except ImportError as error:
        logger.error('error: %s; pip install "lca-fused[export]" brings what exports need', error)
        return 2
    except (ValueError, OSError) as error:
        logger.error("error: %s", error)
        return 2
    return 0


def export(classifier: Classifier, options: Options, images: Sequence[Tensor]) -> None:
    """Write all formats and their description, or nothing.

    Args:
        classifier: the classifier to write.
        options: where to write it, in which formats, and how close the files must be to it.
        images: batches of photos that the files are tried on, each (n, 3, S, S), normalised.

    Raises:
        ExportError: files of other formats are in the folder, which the description would leave
            out: they may be of another model.
        DisagreementError: a file differs from the model by more than the tolerance, or names
            another class.
    """
    _check_folder(options)
    made = not options.output.exists()
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=options.output, prefix=".export-") as folder:
            files: dict[str, Path] = {}
            agreements: dict[str, Agreement] = {}
            for name in dict.fromkeys(options.formats):
                file_format = FORMATS[name]
                path = Path(folder, file_format.file)
                _write(classifier, file_format, path)
                agreement = compare(classifier, file_format.read(classifier, path), images)
                logger.info("%s: %s", file_format.file, agreement)
                _check(agreement, options.tolerance, file_format.file)
                files[name], agreements[name] = path, agreement
            description = describe(classifier, files, {k: vars(a) for k, a in agreements.items()})
            for path in files.values():
                path.replace(options.output / path.name)
            save_json(description, options.output / "model.json")
    except BaseException:
        if made:
            with suppress(OSError):  # not empty: some files had their name already
                options.output.rmdir()
        raise
    logger.info("written to %s", options.output.absolute())


def _write(classifier: Classifier, file_format: Format, path: Path) -> None:
    try:
        file_format.write(classifier, path)
    except (ImportError, OSError):
        raise
    except Exception as error:  # exporters raise nearly anything
        raise FormatError(
            f"{file_format.file} cannot be written ({type(error).__name__}: {error}); leave its "
            "format out of --formats. Nothing was written"
        ) from error


def _check_packages(formats: Sequence[str]) -> None:
    needed = dict.fromkeys(package for name in formats for package in FORMATS[name].packages)
    missing = missing_packages(needed)
    if missing:
        raise ExportError(
            f'{", ".join(missing)} cannot be imported; pip install "lca-fused[export]" brings what '
            "exports need, or leave the format out of --formats"
        )


def _check_space(classifier: Classifier, options: Options) -> None:
    state = classifier.state_dict()
    weights = sum(value.numel() * value.element_size() for value in state.values())
    check_space(options.output, len(options.formats) * weights, "the exported files")


def _check_folder(options: Options) -> None:
    others = [name for name in FORMATS if name not in options.formats]
    left = [name for name in others if (options.output / FORMATS[name].file).exists()]
    if left:
        files = ", ".join(FORMATS[name].file for name in left)
        raise ExportError(
            f"{options.output} holds {files} of an earlier export, which would stay beside the new "
            f"model.json; name another --output, remove what is not wanted, or replace all with "
            f"--formats {' '.join((*options.formats, *left))}"
        )


def compare(classifier: Classifier, exported: Classify, images: Sequence[Tensor]) -> Agreement:
    """Hold an exported file against the model on batches of images."""
    photos, greatest, other_class = 0, 0.0, 0
    for batch in images:
        with torch.inference_mode():
            expected = classifier(batch)
        given = exported(batch)
        difference = (given - expected).abs().max().item()
        greatest = difference if math.isnan(difference) else max(greatest, difference)
        other_class += int((given.argmax(dim=1) != expected.argmax(dim=1)).sum())
        photos += len(batch)
    return Agreement(photos, greatest, other_class)


def _check(agreement: Agreement, tolerance: float, file: str) -> None:
    # A difference that is no number is not within any tolerance.
    if agreement.other_class or not agreement.max_logit_difference <= tolerance:
        raise DisagreementError(
            f"{file} is refused: {agreement}; expected at most {tolerance:g} (--tolerance) and the "
            "same class everywhere. Nothing was written"
        )


def _images(classifier: Classifier, folder: Path | None) -> Tensor:
    """Return the photos that can be read, or noise, (n, 3, S, S), as the model takes them."""
    if folder is None:
        size = described(classifier).preprocessing.image_size
        generator = torch.Generator().manual_seed(0)
        logger.info("no --photos: the files are tried on %d images of noise", _GENERATED)
        return torch.randn(_GENERATED, 3, size, size, generator=generator)
    reader = PhotoReader(find_photos([folder]), described(classifier).preprocessing, _MAX_PIXELS)
    read = list(reader.batches(_BATCH_SIZES[1], workers=0))
    for batch in read:
        for path, reason in batch.unreadable.items():
            logger.warning("left out: %s: %s", path, reason)
    images = [batch.images for batch in read if len(batch.images)]
    if not images:
        raise ExportError(f"--photos {folder} holds no photo that can be read; name another folder")
    return torch.cat(images)


def _batches(images: Tensor) -> Iterator[Tensor]:
    """Yield the first image alone and the others in larger batches."""
    first, size = _BATCH_SIZES
    yield images[:first]
    yield from images[first:].split(size) if len(images) > first else ()


if __name__ == "__main__":
    sys.exit(main())
