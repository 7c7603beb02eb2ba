"""A finished finetuning: what it came to, in words for the terminal and in facts for the report."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.command_lines import command_line
from experiments.finetuning.options import Finetuning
from experiments.finetuning.photos import PhotoCounts
from experiments.study.cells import Cell, model_folder
from experiments.study.methods import METHODS
from experiments.table.significance import wilson_interval


@dataclass(frozen=True)
class Finetuned:
    """A classifier that is trained, tested and stored.

    Attributes:
        options: what was asked for.
        photos: folder of the photos.
        counts: photos of each class.
        cell: what was trained.
        result: as `run_cell` returns it.
        notes: what a reader of the figures has to know, a sentence each.
    """

    options: Finetuning
    photos: Path
    counts: PhotoCounts
    cell: Cell
    result: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def model(self) -> Path:
        """The trained classifier's folder."""
        return model_folder(self.cell.path(self.options.output.absolute()))

    @property
    def right(self) -> int:
        """Test photos that are recognised."""
        pairs = zip(self.result["top5"], self.result["labels"], strict=True)
        return sum(top[0] == label for top, label in pairs)

    @property
    def accuracy_percent(self) -> float:
        """Test accuracy, per cent."""
        return 100 * self.right / len(self.result["labels"])

    @property
    def interval_percent(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the test accuracy, per cent."""
        low, high = wilson_interval(self.right, len(self.result["labels"]))
        return 100 * low, 100 * high

    @property
    def next_commands(self) -> list[str]:
        """The command lines to go on with."""
        return [
            command_line("predict.py", self.model) + " PHOTOS...",
            command_line("export.py", self.model, "--output", self.options.output / "export"),
        ]

    def in_words(self) -> str:
        """Return the accuracy, where the model is, and how to go on."""
        low, high = self.interval_percent
        lines = [
            f"{METHODS[self.cell.method].title}: {self.accuracy_percent:.1f} % of "
            f"{len(self.result['labels'])} test photos recognised (95 % interval {low:.1f} to "
            f"{high:.1f} %)",
            f"model: {self.model}",
            "go on with:",
            *(f"  {command}" for command in self.next_commands),
        ]
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """Return what the report says about this run beyond its stored result, as plain values."""
        fewest, most = self.counts.range_of_train
        balanced = self.cell.recipe.balanced
        return {
            "command": self.options.command,
            "photos": str(self.photos.resolve()),
            "validation_fraction": self.options.validation_fraction,
            "test_fraction": self.options.test_fraction,
            "split_seed": self.options.split_seed,
            "dataset": self.cell.dataset.name,
            "photos_used": {self.cell.dataset.name: self.cell.settings["photos"]},
            "model": str(self.model),
            "next_commands": self.next_commands,
            "accuracy_percent": self.accuracy_percent,
            "interval_percent": list(self.interval_percent),
            "right": self.right,
            "test_photos": len(self.result["labels"]),
            "train_photos": self.counts.train,
            "class_photos": self.counts.by_class,
            "fewest": fewest,
            "most": most,
            "balance": "drawn equally often" if balanced else "drawn as they are",
            "notes": list(self.notes),
            "versions": {"platform": platform.platform()},
        }
