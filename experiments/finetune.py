"""Finetune a classifier on your own photos, and write a report on it.

    python experiments/finetune.py PHOTOS --output runs/mine
    python experiments/finetune.py --embedded          # generated products, nothing to download

PHOTOS holds a folder of photos per product, or train/ and test/ (and validation/) with such
folders. What was computed is kept: run again, an interrupted training goes on after its last epoch,
and a finished one only writes its report. Exit status: 0 when the classifier is there, 1 when
photos or weights cannot be used or the report could not be made, 2 when the command line cannot be
used, the output cannot be written or a worker was killed, 130 when it was interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

if not __package__:  # run as a file, from whatever folder: the packages are beside its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.command_lines import command_line
from experiments.console import set_up_console
from experiments.data.catalog import readable
from experiments.data.contact_sheet import save_contact_sheet
from experiments.data.cut_out import cut_out
from experiments.data.dataset import DataError, ProductDataset
from experiments.data.folder import FEW, few_photos, load_folder
from experiments.data.generated.scenarios import write_scenario
from experiments.data.own_output import mark_output
from experiments.data.torch_dataset import PhotoDataset
from experiments.methods import METHODS
from experiments.networks.model import ModelError
from experiments.networks.weights import WeightsError
from experiments.outputs import OutputError, check_file, check_folder, missing_packages
from experiments.report.attempt import attempt_report
from experiments.report.run import FINETUNED_FILE, REPORT_FILE, next_commands
from experiments.results import Result, model_folder
from experiments.storage import CheckpointError, save_json
from experiments.study.cells import Cell, check_tensorboard, forget_maps, run_cell
from experiments.study.finetuning import Finetuning, parse_finetuning
from experiments.training.device import Compute, resolve_compute
from experiments.training.distributed import INTERRUPTED, on_first, rank, run_together
from experiments.training.memory import WorkerKilledError, killed_workers_explained
from experiments.training.photos import Photos
from experiments.training.shared_memory import training_workers
from lca_fused.photos.reading import ImageError
from lca_fused.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

_EMBEDDED_SCENARIO = "multi-packshot"


@run_together
def main(arguments: Sequence[str] | None = None) -> int:
    """Finetune as `arguments` (default: the command line) say."""
    set_up_console()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = parse_finetuning(arguments)
        compute = resolve_compute(options.device, options.precision, options.batch_size)
        recipe = options.recipe.for_backbone(options.backbone)
        workers = training_workers(compute, options.workers, recipe)
        check_tensorboard(options.tensorboard)
        on_first(_check_output)(options.output)
    except ValueError as error:
        logger.error("error: %s", error)
        return 2
    try:
        with killed_workers_explained():
            result = finetune(options, compute, workers)
    except (DataError, ImageError, WeightsError, ModelError, CheckpointError) as error:
        logger.error("error: %s", error)
        return 1
    except (OutputError, OSError) as error:
        logger.error("error: %s", error)
        return 2
    except WorkerKilledError as error:
        logger.error("error: %s; training goes on after the last finished epoch", error)
        return 2
    except KeyboardInterrupt:
        logger.error("interrupted: the same command goes on after the last finished epoch")
        logger.error("  %s", options.command)
        return INTERRUPTED
    # First: nobody may be there any more to read the rest.
    failed = on_first(attempt_report)(options.output)
    print(_in_words(result, options.output))
    return 1 if failed else 0


def finetune(options: Finetuning, compute: Compute, workers: int) -> Result:
    """Train and test a classifier, or read what an earlier run stored; store what the report says.

    Raises:
        DataError: the photos cannot be used.
        WeightsError: the pretrained weights cannot be had, or belong to another network.
        ModelError: backbone, head and image size do not fit, or training diverged.
        CheckpointError: the checkpoint of an interrupted run cannot be read.
        OutputError: the disk has no room for what is stored.
    """
    on_first(mark_output)(options.output)
    folder = on_first(_photos_folder)(options)
    dataset = on_first(load_own_photos)(folder, options)
    counts = Counter(sample.label for sample in dataset.train)
    recipe = replace(
        options.recipe.for_backbone(options.backbone),
        balanced=options.balanced(max(counts.values()) / min(counts.values())),
    )
    notes = _notes(dataset, balanced=recipe.balanced)
    logger.info("%s", "\n".join(notes))
    if options.photos is not None:
        logger.info(
            "near-duplicates, tiny photos and more, side by side: %s",
            command_line("check.py", options.photos),
        )
    cell = Cell(
        dataset=replace(dataset, notes=(*notes, *dataset.notes)),
        method=options.method,
        seed=options.seed,
        backbone=options.backbone,
        weights=options.weights,
        recipe=recipe,
        compute=compute,
        command=options.command,
        tensorboard=options.tensorboard,
    )

    @cache
    def photos() -> Photos:
        loaded = Photos.load(dataset, recipe, cell.network.preprocessing)
        if rank() == 0:
            _show(loaded.augmented, cell.network.preprocessing, options.output)
        return loaded

    result = run_cell(cell, photos, options.output, workers)
    save_json({"result": result.name}, options.output / FINETUNED_FILE)
    on_first(forget_maps)(options.output)
    return result


def load_own_photos(root: Path, options: Finetuning) -> ProductDataset:
    """Read the photos below `root`, split and cut out as asked; see that all can be decoded.

    Raises:
        DataError: the folder cannot be used (see `load_folder`), photos cannot be read, or, with
            `skip_bad_images`, too few are left, or they cannot be cut out.
    """
    dataset = load_folder(
        root,
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        seed=options.split_seed,
    )
    return readable(cut_out(dataset, options.cut_out), skip=options.skip_bad_images)


def _photos_folder(options: Finetuning) -> Path:
    if options.photos is not None:
        return options.photos
    size = options.image_size
    return write_scenario(_EMBEDDED_SCENARIO, options.output / "embedded", image_size=size)


def _notes(dataset: ProductDataset, *, balanced: bool) -> list[str]:
    counts = Counter(sample.label for sample in dataset.train)
    fewest, most = min(counts.values()), max(counts.values())
    each = f"{fewest} to {most} a class" if fewest < most else f"{most} a class"
    drawn = "every class is drawn equally often" if balanced else "photos are drawn as they are"
    classes = dataset.classes
    notes = [f"{len(dataset.train)} training photos of {len(classes)} classes, {each}: {drawn}."]
    few = few_photos({classes[label]: count for label, count in sorted(counts.items())})
    if few:
        notes.append(f"{len(few)} classes have fewer than {FEW} training photos: {', '.join(few)}.")
    tested = {sample.label for sample in dataset.test}
    untested = [name for label, name in enumerate(classes) if label not in tested]
    if untested:
        notes.append(
            f"{len(untested)} classes have no test photo, so the test says nothing about them: "
            f"{', '.join(untested)}."
        )
    if not dataset.validation:
        notes.append("No photos are held out for validation, so the last epoch is kept.")
    return notes


def _show(photos: PhotoDataset, preprocessing: Preprocessing, output: Path) -> None:
    """Write what is trained on, for the eye: whether products are cut out well, above all."""
    path = output / "augmented" / "finetune.png"
    mean, std = preprocessing.mean, preprocessing.std
    try:
        save_contact_sheet(photos, path, rows=8, columns=8, mean=mean, std=std)
    except OSError as error:
        logger.warning("%s cannot be drawn: %s", path, error)
        return
    logger.info("training photos as they are trained on: %s", path)


def _in_words(result: Result, output: Path) -> str:
    """Return the accuracy, where the model is, and how to go on."""
    low, high = result.interval
    lines = [
        f"{METHODS[result.method].title}: {100 * result.accuracy:.1f} % of {len(result.labels)} "
        f"test photos recognised (95 % interval {100 * low:.1f} to {100 * high:.1f} %)",
        f"model: {model_folder(result.path.absolute())}",
        "go on with:",
        *(f"  {command}" for command in next_commands(result, output)),
    ]
    return "\n".join(lines)


def _check_output(output: Path) -> None:
    """See before anything is computed that it can be written, and say what the report lacks."""
    check_folder(output / "cells", "--output")
    for name in (FINETUNED_FILE, REPORT_FILE):
        check_file(output / name, "--output")
    missing = missing_packages(["jinja2", "matplotlib"])
    if missing:
        logger.warning(
            'no report will be written, as %s cannot be imported: pip install "lca-fused'
            '[experiments]" brings it',
            " and ".join(missing),
        )


if __name__ == "__main__":
    sys.exit(main())
