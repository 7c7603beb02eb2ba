"""One cell of the table: a method on a data set with a seed, computed once and stored."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.backbones import fingerprint, load_feature_map
from experiments.data.dataset import ProductDataset, Sample
from experiments.device import Compute
from experiments.matching import SiftDetector, evaluate_matching
from experiments.methods import METHODS
from experiments.model import ProductClassifier
from experiments.photos import Photos
from experiments.recipe import Recipe
from experiments.storage import save_checkpoint, save_json
from experiments.training import Trainer


@dataclass(frozen=True)
class Cell:
    """What one cell is made of; two cells with equal fields have the same result.

    Attributes:
        dataset: photos and protocol.
        method: key of `experiments.methods.METHODS`.
        seed: of the head's initial weights, the order of photos and their augmentation.
        backbone: key of `experiments.backbones.BACKBONES`.
        weights: file of its pretrained weights, or None for torchvision's.
        recipe: how it is finetuned.
        compute: device and precision.
    """

    dataset: ProductDataset
    method: str
    seed: int
    backbone: str
    weights: Path | None
    recipe: Recipe
    compute: Compute

    def settings(self) -> dict[str, Any]:
        """Return everything the result depends on, as plain values."""
        common = {"dataset": self.dataset.name, "photos": _digest(self.dataset)}
        if METHODS[self.method].head is None:
            return common | {"method": self.method, "detector": dict(SiftDetector().params)}
        return common | {
            "method": self.method,
            "seed": self.seed,
            "backbone": self.backbone,
            "weights": fingerprint(self.weights),
            "recipe": asdict(self.recipe),
            "precision": str(self.compute.precision).removeprefix("torch."),
        }

    def path(self, output: Path) -> Path:
        """Return the file its result is stored in, under `output`."""
        text = json.dumps(self.settings(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        name = self.method
        if METHODS[self.method].head is not None:
            name += f"-seed{self.seed}"
        return output / "cells" / self.dataset.name / f"{name}-{digest}.json"


def run_cell(
    cell: Cell, photos: Callable[[], Photos], output: Path, workers: int
) -> dict[str, Any]:
    """Return the result of `cell`: the stored one, or computed and stored now.

    A cell that was interrupted goes on after its last finished epoch.

    Returns:
        Plain values: accuracy (0..1), labels and top5 of the test photos, the settings, and for
        trained methods the best epoch and the history.
    """
    path = cell.path(output)
    if path.exists():
        return json.loads(path.read_text())
    checkpoint = path.with_suffix(".checkpoint.pt")
    start = time.perf_counter()
    if METHODS[cell.method].head is None:
        result = _match(cell, output)
    else:
        result = _finetune(cell, photos(), path, checkpoint, workers)
    result |= {
        "settings": cell.settings(),
        "seconds": time.perf_counter() - start,
        "labels": [sample.label for sample in cell.dataset.test],
        "versions": {"torch": torch.__version__},
    }
    save_json(result, path)
    checkpoint.unlink(missing_ok=True)
    return result


def _match(cell: Cell, output: Path) -> dict[str, Any]:
    predictions = evaluate_matching(cell.dataset, SiftDetector(), cache_dir=output / "keypoints")
    labels = [sample.label for sample in cell.dataset.test]
    correct = sum(int(p == y) for p, y in zip(predictions.labels, labels, strict=True))
    return {"accuracy": correct / len(labels), "top5": predictions.top5.tolist()}


def _finetune(
    cell: Cell, photos: Photos, path: Path, checkpoint: Path, workers: int
) -> dict[str, Any]:
    method = METHODS[cell.method]
    trainer = Trainer(
        build_classifier(cell),
        method.loss(cell.recipe),
        cell.recipe,
        cell.compute,
        seed=cell.seed,
        checkpoint=checkpoint,
        workers=workers,
        title=f"{cell.dataset.name} {cell.method} seed {cell.seed}",
    )
    progress = trainer.fit(photos.train(cell.seed), photos.validation)
    score = trainer.score(photos.test)
    save_checkpoint(
        {
            "model": trainer.model.state_dict(),
            "classes": list(cell.dataset.classes),
            "settings": cell.settings(),
        },
        path.with_suffix(".model.pt"),
    )
    return {
        "accuracy": score.accuracy,
        "top5": score.top5.tolist(),
        "best_epoch": progress.best_epoch,
        "history": progress.history,
    }


def build_classifier(cell: Cell) -> ProductClassifier:
    """Return the classifier of `cell`, pretrained backbone and head drawn from its seed."""
    features = load_feature_map(cell.backbone, cell.weights)
    torch.manual_seed(cell.seed)
    head = METHODS[cell.method].head
    if head is None:
        raise ValueError(f"{cell.method} has no network to build")
    size = cell.recipe.image_size
    return ProductClassifier(features, head, len(cell.dataset.classes), size)


def _digest(dataset: ProductDataset) -> str:
    """Return a fingerprint of which photos are used for what; their folder does not matter."""
    parts: list[str] = [*dataset.classes, str(dataset.train_repeats)]
    for split in (dataset.train, dataset.validation, dataset.test):
        parts += ["split", *map(_identity, split)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _identity(sample: Sample) -> str:
    return f"{'/'.join(sample.path.parts[-3:])} {sample.path.stat().st_size} {sample.label}"
