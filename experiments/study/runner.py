"""Works through a study cell by cell, keeping the table on disk up to date."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path

import torch

from experiments.backbones import BACKBONES, WeightsError, WeightsNotGivenError
from experiments.cells import Cell, run_cell
from experiments.data.catalog import CATALOG, DataOptions, load_dataset
from experiments.data.dataset import DataError, DataNotGivenError, ProductDataset
from experiments.device import resolve_compute, share_cores
from experiments.methods import METHODS
from experiments.model import ModelError
from experiments.photos import Photos
from experiments.pretraining import pretrain_embedded_backbone
from experiments.storage import CheckpointError, save_json, save_text
from experiments.study import Study
from experiments.table import Entry, to_json, to_markdown

logger = logging.getLogger(__name__)


class Runner:
    """A study under way.

    Args:
        study: what to run.
        report: path of the table's files, without their suffix.

    Attributes:
        failed: whether something that was given could not be used.

    Raises:
        ValueError: an unknown method, data set, backbone or device.
    """

    def __init__(self, study: Study, report: Path) -> None:
        _check_names("--methods", study.methods, METHODS)
        _check_names("--datasets", study.datasets, CATALOG)
        _check_names("--backbone", [study.backbone], BACKBONES)
        self.study = study
        self.report = report
        self.failed = False
        self._compute = resolve_compute(study.device, study.precision)
        self._workers = share_cores(self._compute, study.workers)
        self._entries = {
            (method, dataset): Entry(missing="not computed yet")
            for method in study.methods
            for dataset in study.datasets
        }

    def run(self) -> str:
        """Compute every cell that is not stored yet; return the table as Markdown."""
        for name in self.study.datasets:
            try:
                dataset = load_dataset(name, self._data_options)
            except DataError as error:
                for method in self.study.methods:
                    self._give_up(method, name, error)
                continue
            self._run_on(dataset, name)
        return self._write_table()

    def _run_on(self, dataset: ProductDataset, name: str) -> None:
        @cache
        def photos() -> Photos:
            normalization = BACKBONES[self.study.backbone].normalization
            return Photos.load(dataset, self.study.recipe, normalization)

        for method in self.study.methods:
            trained = METHODS[method].head is not None
            try:
                for seed in self.study.seeds if trained else self.study.seeds[:1]:
                    cell = Cell(
                        dataset=dataset,
                        method=method,
                        seed=seed,
                        backbone=self.study.backbone,
                        weights=self._weights if trained else None,
                        recipe=self.study.recipe,
                        compute=self._compute,
                    )
                    if self.study.stored_only and not cell.path(self.study.output).exists():
                        continue
                    result = run_cell(cell, photos, self.study.output, self._workers)
                    self._add(method, name, result["accuracy"])
            except (DataError, WeightsError, ModelError, CheckpointError) as error:
                self._give_up(method, name, error)

    @property
    def _data_options(self) -> DataOptions:
        return DataOptions(
            root=self.study.data_root,
            cache=self.study.output / "embedded",
            image_size=self.study.recipe.image_size,
            skip_bad_images=self.study.skip_bad_images,
        )

    @cached_property
    def _weights(self) -> Path | None:
        if self.study.backbone == "embedded" and self.study.weights is None:
            return pretrain_embedded_backbone(
                self.study.output, self._data_options, self._compute, self._workers
            )
        return self.study.weights

    def _add(self, method: str, dataset: str, accuracy: float) -> None:
        accuracies = self._entries[method, dataset].accuracies
        self._entries[method, dataset] = Entry((*accuracies, accuracy))
        logger.info("%s, %s: %.1f %%", dataset, METHODS[method].title, 100 * accuracy)
        self._write_table()

    def _give_up(self, method: str, dataset: str, error: Exception) -> None:
        done = self._entries[method, dataset].accuracies
        self._entries[method, dataset] = Entry(done, missing=str(error))
        if not isinstance(error, DataNotGivenError | WeightsNotGivenError):
            self.failed = True
            logger.error("error: %s on %s: %s", method, dataset, error)
        self._write_table()

    def _write_table(self) -> str:
        study, description = self.study, self._description()
        table = to_markdown(self._entries, study.methods, study.datasets, description)
        save_text(table, self.report.with_suffix(".md"))
        save_json(
            to_json(self._entries, study.methods, study.datasets, description),
            self.report.with_suffix(".json"),
        )
        return table

    def _description(self) -> dict[str, str]:
        recipe = {**asdict(self.study.recipe), **asdict(self.study.recipe.augmentation)}
        del recipe["augmentation"]
        return {
            "backbone": self.study.backbone,
            "seeds": ", ".join(map(str, self.study.seeds)) + " (keypoint matching has none)",
            "recipe": ", ".join(f"{name}={value}" for name, value in recipe.items()),
            "device": f"{self._compute.device.type}, {self._compute.precision}",
            "torch": torch.__version__,
        }


def _check_names(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{option} holds {', '.join(unknown)}; expected from {', '.join(known)}")
