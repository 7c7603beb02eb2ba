"""Write a stored model in formats that run without this project.

    python experiments/export.py runs/cells/.../lca-seed0-*.model --output shipped
    python experiments/export.py MODEL --output shipped --formats onnx --photos photos/
    python experiments/export.py MODEL --output small --formats int8 --photos photos/

DIR then holds model.onnx (any number of photos, standard operators), model.pt2 (torch.export),
model.safetensors (the weights) and model.json: classes, preprocessing, versions, checksums. Each
format is held against the model on photos before it gets its name; one that differs by more than
the tolerance or names another class is refused and leaves no file.

int8 (model-int8.onnx) is judged by the share of photos that it recognises, or, where their folders
name no products, by how often it names the same class: one that loses over half a point is refused.

Exit status: 0 when all formats were written, 1 when one is refused, 2 when the command line or the
model cannot be used, 130 when interrupted.
"""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

if not __package__:  # run as a file, from whatever folder: the packages are beside its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.console import set_up_console
from experiments.data.names import class_name
from experiments.deploy.export_formats import FILES, FORMATS, INT8, Classify, Format
from experiments.deploy.export_manifest import describe
from experiments.deploy.inference import MAX_MEGAPIXELS, MEGAPIXEL, PhotoReader, find_photos
from experiments.outputs import check_folder, check_space, missing_packages
from experiments.storage import save_json
from lca_fused import Classifier, load_classifier
from lca_fused.description import described

logger = logging.getLogger(__name__)

_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_GENERATED = 8
_CALIBRATED = 200  # photos at most
_BATCH_SIZES = (1, 16)  # of the first batch and of the others: the number of photos is free
_MAX_PIXELS = MAX_MEGAPIXELS * MEGAPIXEL  # what training reads is read here


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
    formats: tuple[Literal["onnx", "torch-export", "safetensors", "int8"], ...] = (
        "onnx",
        "torch-export",
        "safetensors",
    )
    """What to write; int8 is ONNX in 8-bit integers, calibrated and judged on photos."""
    photos: Path | None = None
    """Photo or folder of photos the files are held against the model on; default: noise."""
    tolerance: float = 1e-4
    """Greatest difference of a logit that is accepted, but of int8."""
    calibration: Path | None = None
    """Photo or folder of photos that int8 is calibrated on; default: every fourth of --photos, 200
    at most, and it is judged on the others."""
    max_loss: float = 0.5
    """Points of accuracy that int8 may lose; of agreement, where the folders of the photos do not
    name products of the model."""
    reduce_range: bool = False
    """Give int8 weights 7 bits, for x86 CPUs without VNNI (before about 2019), which may be wrong
    with 8."""

    def __post_init__(self) -> None:
        if not self.formats:
            raise ExportError(f"--formats is empty; expected from {', '.join(FILES)}")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ExportError(f"--tolerance is {self.tolerance}; expected 0 or more")
        if not 0 <= self.max_loss <= 100:
            raise ExportError(f"--max-loss is {self.max_loss}; expected 0 to 100 points")
        if INT8 in self.formats and self.photos is None:
            raise ExportError("int8 is calibrated and judged on photos; give a folder: --photos")


@dataclass(frozen=True)
class Photos:
    """Photos that the files are tried on, or noise.

    Attributes:
        images: (n, 3, S, S), normalised.
        labels: n indices of the classes that their folders name; None where a folder names none.
    """

    images: Tensor
    labels: tuple[int | None, ...]

    def __getitem__(self, which: Sequence[int]) -> Photos:
        return Photos(self.images[list(which)], tuple(self.labels[n] for n in which))

    def __len__(self) -> int:
        return len(self.labels)


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
        export(classifier, options, _photos(classifier, options.photos))
    except (DisagreementError, FormatError) as error:
        logger.error("error: %s", error)
        return 1
    except ImportError as error:
        logger.error('error: %s; pip install "lca-fused[export]" brings what exports need', error)
        return 2
    except (ValueError, OSError) as error:
        logger.error("error: %s", error)
        return 2
    except KeyboardInterrupt:
        logger.error("interrupted; nothing was written")
        return _INTERRUPTED
    return 0


def export(classifier: Classifier, options: Options, photos: Photos) -> None:
    """Write all formats and their description, or nothing.

    Args:
        classifier: the classifier to write.
        options: where to write it, in which formats, and how close the files must be to it.
        photos: photos that the files are tried on.

    Raises:
        ExportError: files of other formats are in the folder, which the description would leave
            out: they may be of another model.
        DisagreementError: a file differs from the model by more than the tolerance, or names
            another class; or int8 loses more than it may.
    """
    _check_folder(options)
    made = not options.output.exists()
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=options.output, prefix=".export-") as folder:
            files: dict[str, Path] = {}
            agreements: dict[str, dict[str, Any]] = {}
            for name in sorted(dict.fromkeys(options.formats), key=lambda name: name == INT8):
                files[name] = Path(folder, FILES[name])
                if name == INT8:
                    agreements[name] = _export_int8(classifier, options, photos, files)
                else:
                    agreements[name] = _export(classifier, options, photos, name, files[name])
            description = describe(classifier, files, agreements)
            for path in files.values():
                path.replace(options.output / path.name)
            save_json(description, options.output / "model.json")
    except BaseException:
        if made:
            with suppress(OSError):  # not empty: some files had their name already
                options.output.rmdir()
        raise
    logger.info("written to %s", options.output.absolute())


def _export(
    classifier: Classifier, options: Options, photos: Photos, name: str, path: Path
) -> dict[str, Any]:
    """Write a file that says what the model says; return how close it is."""
    file_format = FORMATS[name]
    _write(classifier, file_format, path)
    exported = file_format.read(classifier, path)
    agreement = compare(classifier, exported, list(_batches(photos.images)))
    logger.info("%s: %s", path.name, agreement)
    _check(agreement, options.tolerance, path.name)
    return vars(agreement)


def _export_int8(
    classifier: Classifier, options: Options, photos: Photos, files: Mapping[str, Path]
) -> dict[str, Any]:
    """Write the 8-bit file; return what it costs and saves."""
    from experiments.deploy.int8 import judge, quantise

    path = files[INT8]
    float32 = files.get("onnx", path.with_name("float32.onnx"))
    if "onnx" not in files:
        _export(classifier, options, photos, "onnx", float32)
    calibration, judged_on = _divided(classifier, options, photos)
    with _exporter_errors_named(path):
        quantise(float32, calibration.images, path, reduce_range=options.reduce_range)
    judged = judge(float32, path, judged_on.images, judged_on.labels)
    logger.info("%s, calibrated on %d photos: %s", path.name, len(calibration), judged)
    if judged.lost > options.max_loss:
        raise DisagreementError(
            f"{path.name} is refused: {judged.lost:.2f} points are lost, expected at most "
            f"{options.max_loss:g} (--max-loss); calibrate on more photos like those of the shop "
            "(--calibration), or leave int8 out of --formats. Nothing was written"
        )
    return vars(judged) | {
        "calibrated_on": len(calibration),
        "lost_points": judged.lost,
        "reduce_range": options.reduce_range,
    }


def _divided(classifier: Classifier, options: Options, photos: Photos) -> tuple[Photos, Photos]:
    """Return the photos to calibrate on, and those to judge on."""
    if options.calibration is not None:
        return _photos(classifier, options.calibration), photos
    if len(photos) < 2:
        raise ExportError(
            f"--photos {options.photos} holds one photo that can be read; int8 needs one to "
            "calibrate on and others to be judged on"
        )
    step = max(4, -(-len(photos) // _CALIBRATED))
    chosen = range(0, len(photos), step)
    return photos[chosen], photos[[n for n in range(len(photos)) if n not in chosen]]


def _write(classifier: Classifier, file_format: Format, path: Path) -> None:
    with _exporter_errors_named(path):
        file_format.write(classifier, path)


@contextmanager
def _exporter_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (ImportError, OSError):
        raise
    except Exception as error:  # exporters raise nearly anything
        raise FormatError(
            f"{path.name} cannot be written ({type(error).__name__}: {error}); leave its "
            "format out of --formats. Nothing was written"
        ) from error


def _check_packages(formats: Sequence[str]) -> None:
    written = ["onnx" if name == INT8 else name for name in formats]
    needed = dict.fromkeys(package for name in written for package in FORMATS[name].packages)
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
    others = [name for name in FILES if name not in options.formats]
    left = [name for name in others if (options.output / FILES[name]).exists()]
    if left:
        files = ", ".join(FILES[name] for name in left)
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


def _photos(classifier: Classifier, folder: Path | None) -> Photos:
    """Return the photos that can be read, or noise, as the model takes them."""
    if folder is None:
        size = described(classifier).preprocessing.image_size
        generator = torch.Generator().manual_seed(0)
        logger.info("no --photos: the files are tried on %d images of noise", _GENERATED)
        noise = torch.randn(_GENERATED, 3, size, size, generator=generator)
        return Photos(noise, (None,) * _GENERATED)
    reader = PhotoReader(find_photos([folder]), described(classifier).preprocessing, _MAX_PIXELS)
    read = list(reader.batches(_BATCH_SIZES[1], workers=0))
    for batch in read:
        for path, reason in batch.unreadable.items():
            logger.warning("left out: %s: %s", path, reason)
    images = [batch.images for batch in read if len(batch.images)]
    if not images:
        raise ExportError(f"{folder} holds no photo that can be read; name another folder")
    numbers = {name: number for number, name in enumerate(described(classifier).classes)}
    labels = (numbers.get(class_name(path.parent)) for batch in read for path in batch.readable)
    return Photos(torch.cat(images), tuple(labels))


def _batches(images: Tensor) -> Iterator[Tensor]:
    """Yield the first image alone and the others in larger batches."""
    first, size = _BATCH_SIZES
    yield images[:first]
    yield from images[first:].split(size) if len(images) > first else ()


if __name__ == "__main__":
    sys.exit(main())
