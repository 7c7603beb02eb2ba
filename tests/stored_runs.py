"""Run folders as a study leaves them, without the hours of training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.checksum import content_digests
from experiments.data.folder import load_folder
from experiments.methods import parse_rows
from experiments.networks.model import new_classifier
from experiments.results import Entry, Result, model_folder
from experiments.training.recipe import Recipe
from lca_fused.backbones import find_backbone
from tests.products import COLOURS

CLASSES = tuple(sorted(COLOURS))
TEST_PHOTOS = 4  # of each class, as write_photos writes them
SIZE = 32


def settings(method: str, seed: int = 0, dataset: str = "folder/photos", **recipe: Any) -> dict:
    """Settings of a cell, as `Cell.settings` gives them."""
    full = {**asdict(Recipe(image_size=SIZE)), **recipe}
    return {
        "dataset": dataset,
        "photos": "0123456789abcdef",
        "method": method,
        "seed": seed,
        "backbone": "embedded",
        "weights": "fedcba9876543210",
        "preprocessing": find_backbone("embedded").at(full["image_size"]).preprocessing.to_dict(),
        "recipe": full,
        "precision": "float32",
    }


def result(
    labels: list[int], predicted: list[int], cell_settings: dict, photos: Path | None = None, **more
) -> dict:
    """A cell's stored result, on the photos of a folder, or on photos that are gone."""
    return {
        "command": "run_all.py folder",
        "settings": cell_settings,
        "labels": labels,
        "top5": [[p] for p in predicted],
        "classes": list(CLASSES),
        "trained_on": [6] * len(CLASSES),
        "folder": "/gone/photos",
        "images": [f"{k}.png" for k in range(len(labels))],
        "contents": ["0"] * len(labels),
        "trained_contents": [],
        "notes": [],
        "best_epoch": 2,
        "history": [
            {
                "epoch": epoch,
                "train_loss": 2.0 / epoch,
                "validation_accuracy": 0.3 * epoch,
                "validation_loss": 2.5 / epoch,
            }
            for epoch in (1, 2, 3)
        ],
        "seconds": 75.0,
        "device": "AMD EPYC",
        "versions": {"torch": "2.9.0"},
        **({} if photos is None else of_folder(photos)),
        **more,
    }


def of_folder(photos: Path, **options: Any) -> dict:
    """What a result says of its photos."""
    test = [sample.path for sample in load_folder(photos, **options).test]
    return {
        "folder": str(photos),
        "images": [path.relative_to(photos).as_posix() for path in test],
        "contents": content_digests(test),
    }


def outcome(right: Any, seed: int | None = 0, path: str = "lca.json", **more: Any) -> Result:
    """The result of a cell that gets the given test photos right, half of them of class 0."""
    labels = np.arange(len(right)) * 2 // len(right)
    made_of = {"dataset": "data", "method": "lca", "seed": seed}
    predicted = np.where(right, labels, 1 - labels).tolist()
    stored = result(labels.tolist(), predicted, made_of) | more
    return Result(Path(path), **stored)


def entry(*results: Result, **more: Any) -> Entry:
    """An entry of a table."""
    (row,) = parse_rows(["lca"], "embedded")
    return Entry(row, "data", results, **more)


def labels_of_folder() -> list[int]:
    """Labels of the test photos that `write_photos` writes, in the order they are read."""
    return [label for label in range(len(CLASSES)) for _ in range(TEST_PHOTOS)]


def with_mistakes(labels: list[int], *mistakes: tuple[int, int]) -> list[int]:
    """Predictions that are right but for (position, class it is taken for)."""
    predicted = list(labels)
    for position, taken_for in mistakes:
        predicted[position] = taken_for
    return predicted


def write_cell(run: Path, stored: dict, name: str = "") -> Path:
    """Write a result below `run`/cells, as `run_cell` does."""
    cell_settings = stored["settings"]
    name = name or f"{cell_settings['method']}-seed{cell_settings.get('seed')}"
    path = run / "cells" / cell_settings["dataset"] / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored))
    return path


def write_model(cell: Path, head: str = "lca", classes: tuple[str, ...] = CLASSES) -> Path:
    """Write an untrained classifier beside a cell's result, as `run_cell` does."""
    torch.manual_seed(0)
    backbone = find_backbone("embedded").at(SIZE)
    classifier = new_classifier(backbone.build(), head, len(classes), SIZE)
    stored = json.loads(cell.read_text())["settings"]
    classifier.describe(classes, backbone=backbone, training=stored)
    folder = model_folder(cell)
    classifier.save_pretrained(folder)
    return folder


def write_study(run: Path, photos: Path | None = None) -> Path:
    """Write three rows, two of them of two seeds, one with a model, on the photos of a folder."""
    labels = labels_of_folder()
    rng = np.random.default_rng(0)
    for method, seeds in (("gap", (0, 1)), ("gap-fc", (0,)), ("lca", (0, 1))):
        for seed in seeds:
            positions = rng.choice(len(labels), 3 - seed, replace=False)
            mistakes = [(int(p), (labels[p] + 1) % len(CLASSES)) for p in positions]
            predicted = with_mistakes(labels, *mistakes)
            path = write_cell(run, result(labels, predicted, settings(method, seed), photos))
            if (method, seed) == ("lca", 0):
                write_model(path)
    return run
