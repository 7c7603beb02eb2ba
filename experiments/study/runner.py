"""Works through a study cell by cell, keeping the table on disk up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import cache, lru_cache, partial
from pathlib import Path

import torch

from experiments.data.catalog import CATALOG, load_dataset
from experiments.data.contact_sheet import save_contact_sheet
from experiments.data.dataset import DataError, DataNotGivenError, ProductDataset
from experiments.data.own_output import mark_output
from experiments.data.source import DataOptions
from experiments.methods import Row, parse_rows
from experiments.networks.backbones import load_network
from experiments.networks.model import ModelError
from experiments.networks.weights import WeightsError, WeightsNotGivenError
from experiments.outputs import OutputError, check_file, check_folder
from experiments.report.table import paper_table, to_json, to_markdown, weights_sources
from experiments.results import NotRun, Result, Table
from experiments.storage import CheckpointError, save_json, save_text
from experiments.study.cells import Cell, check_tensorboard, forget_maps, run_cell
from experiments.study.jobs import number_of_jobs, side_by_side
from experiments.study.options import Study, parse_weights
from experiments.training.device import resolve_compute
from experiments.training.distributed import on_first, rank
from experiments.training.photos import Photos, augmented_photos
from experiments.training.shared_memory import training_workers
from lca_fused.photos.reading import ImageError
from lca_fused.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

_WAITING = NotRun("not yet", "its turn has not come")
_NOT_STORED = NotRun(
    "not stored", "not all of it is stored with these settings, and --stored-only computes nothing"
)

_EXPECTED = (DataError, ImageError, WeightsError, ModelError, CheckpointError, OSError)

PhotosFor = Callable[[Preprocessing], Photos]
CellKey = tuple[str, str, int]  # names of the row and the data set, seed


class Runner:
    """A study under way.

    Args:
        study: the study to run.
        report: path of the table's files, without their suffix.
        command: command line that asks for the table, for the report.

    Attributes:
        table: the table, as far as it is computed.
        failed: whether something that was given could not be used.

    Raises:
        ValueError: an unknown method, data set, backbone, device or name of weights, or one that
            is given twice, or the output cannot be written.
    """

    def __init__(self, study: Study, report: Path, command: str) -> None:
        _check_names("--datasets", study.datasets, CATALOG)
        _refuse_repeats("--datasets", study.datasets)
        _refuse_repeats("--seeds", study.seeds)
        if not report.name:
            raise ValueError(f"--report is {report}; expected a file's path, without its suffix")
        self.study = study
        self.report = report
        self.command = command
        self.failed = False
        self.rows = parse_rows(study.methods, study.backbone)
        self._weights = parse_weights(study.weights, self.rows)
        check_tensorboard(study.tensorboard)
        self._compute = resolve_compute(study.device, study.precision, study.batch_size)
        cells = len(study.datasets) * sum(len(self._seeds(row)) for row in self.rows)
        self._jobs = number_of_jobs(study.jobs, self._compute, cells)
        recipe = study.recipe.for_backbone(study.backbone)
        self._workers = training_workers(self._compute, study.workers, recipe)
        self._ahead: dict[CellKey, Future[Result]] = {}
        on_first(check_folder)(study.output / "cells", "--output")
        for file in self._files:
            on_first(check_file)(file, "--report")
        waiting = dict.fromkeys(study.datasets, _WAITING)
        self.table = Table.empty(self.rows, study.datasets, self._description(), waiting)

    def run(self) -> str:
        """Compute every cell that is not stored yet; return the table as Markdown.

        Raises:
            OutputError: the disk has no room for the next cell.
        """
        on_first(mark_output)(self.study.output)
        loaded = {name: self._load(name) for name in self.study.datasets}
        datasets = {name: dataset for name, dataset in loaded.items() if dataset is not None}
        with self._side_by_side(datasets):
            for name, dataset in datasets.items():
                self._run_on(dataset, name)
        on_first(forget_maps)(self.study.output)
        text = self._write_table(last=True)
        picture = self._files[-1]
        with self._not_fatal(picture):
            # Loads matplotlib, half a second that no process of the jobs needs to wait.
            from experiments.report.figures import save_ladder

            on_first(save_ladder)(self.table, picture)
        return text

    @contextmanager
    def _side_by_side(self, datasets: dict[str, ProductDataset]) -> Iterator[None]:
        """Have the cells that are not stored computed side by side while they are waited for."""
        missing: dict[CellKey, Cell] = {}
        if self._jobs > 1 and not self.study.stored_only:
            for name, dataset in datasets.items():
                for row in self.rows:
                    with suppress(Exception):  # it is met again, and told, in the row's turn
                        missing |= self._missing(row, dataset, name)
        if not missing:
            yield
            return
        output, workers = self.study.output, self.study.workers
        with side_by_side(self._jobs, missing, output, workers) as self._ahead:
            yield

    def _missing(self, row: Row, dataset: ProductDataset, name: str) -> dict[CellKey, Cell]:
        cells = [self._cell(row, dataset, seed) for seed in self._seeds(row)]
        missing = [cell for cell in cells if not cell.path(self.study.output).exists()]
        if missing and row.backbone:
            self._fetch(row)
            self._show(dataset, name, missing[0].network.preprocessing)
        return {(row.name, name, cell.seed): cell for cell in missing}

    @cache  # noqa: B019  # a study has one runner
    def _fetch(self, row: Row) -> None:
        """Fetch the weights of a row's backbone, once rather than in every process."""
        backbone = row.backbone or self.study.backbone
        size = self.study.recipe.for_backbone(backbone).image_size
        load_network(backbone, self._weights_of(row), size)

    def _load(self, name: str) -> ProductDataset | None:
        try:
            return on_first(load_dataset)(name, self._data_options)
        except Exception as error:  # of one data set: the others are run
            for row in self.rows:
                self._give_up(row, name, error)
            return None

    @contextmanager
    def _not_fatal(self, picture: Path) -> Iterator[None]:
        """List what keeps a picture from being drawn, and go on."""
        try:
            yield
        except Exception as error:
            self.failed = True
            logger.error("error: %s cannot be drawn: %s", picture, error)

    @property
    def written(self) -> list[Path]:
        """The table's files: Markdown, JSON and, once there is a result, the ladder's picture."""
        return [file.absolute() for file in self._files if file.exists()]

    @property
    def _files(self) -> tuple[Path, ...]:
        ends = (".md", ".json", "-ladder.png")  # added to the name: it may be called "lca-0.5"
        return tuple(self.report.with_name(self.report.name + end) for end in ends)

    def _run_on(self, dataset: ProductDataset, name: str) -> None:
        @lru_cache(maxsize=1)
        def photos(preprocessing: Preprocessing) -> Photos:
            if rank() == 0:
                self._show(dataset, name, preprocessing)
            return Photos.load(dataset, self.study.recipe, preprocessing)

        for row in self.rows:
            self._run_row(row, dataset, name, photos)

    @cache  # noqa: B019  # a study has one runner
    def _show(self, dataset: ProductDataset, name: str, preprocessing: Preprocessing) -> None:
        """Write what the networks are trained on, for the eye; beside the cells, as it is data."""
        path = self.study.output / "augmented" / f"{name.replace('/', '-')}.png"
        mean, std = preprocessing.mean, preprocessing.std
        photos = augmented_photos(dataset, self.study.recipe, preprocessing, cache_bytes=0)
        with self._not_fatal(path):
            save_contact_sheet(photos, path, rows=8, columns=8, mean=mean, std=std)

    def _run_row(self, row: Row, dataset: ProductDataset, name: str, photos: PhotosFor) -> None:
        if self.study.stored_only and not on_first(self._may_be_stored)(row, dataset):
            # Not even a cell's name is computed: it may take weights that are not here.
            self._leave_out(row, name, _NOT_STORED)
            return
        try:
            for seed in self._seeds(row):
                self._run_cell(row, name, self._cell(row, dataset, seed), photos)
            self._finish(row, name)
        except (
            OutputError,
            BrokenProcessPool,
        ):  # what keeps every other cell from being computed as well
            raise
        except Exception as error:  # of one row: the others are run
            self._give_up(row, name, error)

    def _run_cell(self, row: Row, dataset: str, cell: Cell, photos: PhotosFor) -> None:
        output = self.study.output
        if self.study.stored_only and not on_first(lambda: cell.path(output).exists())():
            self._leave_out(row, dataset, _NOT_STORED)
            return
        ahead = self._ahead.get((row.name, dataset, cell.seed))
        if ahead is not None:
            result = ahead.result()
        else:
            load = partial(photos, cell.network.preprocessing)
            result = run_cell(cell, load, output, self._workers)
        entry = self.table.entries[row.name, dataset]
        self.table.entries[row.name, dataset] = replace(entry, results=(*entry.results, result))
        logger.info("%s, %s: %.1f %%", dataset, row.title, 100 * result.accuracy)
        self._write_table()

    def _seeds(self, row: Row) -> tuple[int, ...]:
        return self.study.seeds if row.backbone else self.study.seeds[:1]

    def _may_be_stored(self, row: Row, dataset: ProductDataset) -> bool:
        """Whether a cell of the row can be named without computing anything, and may be there."""
        folder = self.study.output / "cells" / dataset.name
        seeds = "-seed*" if row.backbone else "-*"
        return any(folder.glob(f"{row.method_name}{seeds}.json"))

    def _cell(self, row: Row, dataset: ProductDataset, seed: int) -> Cell:
        backbone = row.backbone or self.study.backbone
        return Cell(
            dataset=dataset,
            method=row.method_name,
            seed=seed,
            backbone=backbone,
            weights=self._weights_of(row),
            recipe=self.study.recipe.for_backbone(backbone),
            compute=self._compute,
            command=self.command,
            tensorboard=self.study.tensorboard,
        )

    @property
    def _data_options(self) -> DataOptions:
        return DataOptions(
            root=self.study.data_root,
            cache=self.study.output / "embedded",
            image_size=self.study.image_size,
            skip_bad_images=self.study.skip_bad_images,
            cut_out=self.study.cut_out,
        )

    def _weights_of(self, row: Row) -> Path | None:
        return self._weights.get(row.backbone or row.method.detector or "")

    def _finish(self, row: Row, dataset: str) -> None:
        entry = self.table.entries[row.name, dataset]
        if entry.not_run is _WAITING:
            self.table.entries[row.name, dataset] = replace(entry, not_run=None)

    def _give_up(self, row: Row, dataset: str, error: Exception) -> None:
        """Note why the rest of a row's cells on a data set cannot be computed."""
        if isinstance(error, DataNotGivenError):
            short = "no photos"
        elif isinstance(error, WeightsNotGivenError):
            short = "no weights"
        else:
            short = "error"
            self.failed = True
            unexpected = None if isinstance(error, _EXPECTED) else error
            logger.error("error: %s on %s: %s", row.name, dataset, error, exc_info=unexpected)
        self._leave_out(row, dataset, NotRun(short, str(error)))

    def _leave_out(self, row: Row, dataset: str, not_run: NotRun) -> None:
        entry = self.table.entries[row.name, dataset]
        self.table.entries[row.name, dataset] = replace(entry, not_run=not_run)
        self._write_table()

    def _write_table(self, *, last: bool = False) -> str:
        """Write the table as it stands; a file that another program holds is no reason to stop."""
        text = to_markdown(self.table)
        if self.study.paper_table:
            text += "\n" + paper_table()
        try:
            on_first(save_text)(text, self._files[0])
            on_first(save_json)(to_json(self.table), self._files[1])
        except OSError as error:
            self.failed |= last
            logger.error("error: the table cannot be written: %s", error)
        return text

    def _description(self) -> dict[str, str]:
        recipe = {**asdict(self.study.recipe), **asdict(self.study.recipe.augmentation)}
        del recipe["augmentation"]
        changes = {row.name: row.method.changes for row in self.rows if row.method.changes}
        backbones = dict.fromkeys(row.backbone for row in self.rows if row.backbone)
        return {
            "backbone": ", ".join(backbones) or "none",
            "seeds": ", ".join(map(str, self.study.seeds)) + " (keypoint matching has none)",
            "recipe": _listed(recipe),
            **{f"recipe of {name}": _listed(changed) for name, changed in changes.items()},
            "device": f"{self._compute.device.type}, {self._compute.precision}",
            "torch": torch.__version__,
        } | self._weights_used()

    def _weights_used(self) -> dict[str, str]:
        """Return where each network's weights come from; of files their names alone."""
        given = {f"weights of {name}": file.name for name, file in self._weights.items()}
        return weights_sources(self.rows) | given


def _listed(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in fields.items())


def _check_names(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{option} holds {', '.join(unknown)}; expected from {', '.join(known)}")


def _refuse_repeats(option: str, given: tuple[object, ...]) -> None:
    twice = [str(value) for value in dict.fromkeys(given) if given.count(value) > 1]
    if twice:
        raise ValueError(
            f"{option} holds {', '.join(twice)} more than once; one run would count as several, "
            "name it once"
        )
