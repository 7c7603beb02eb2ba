"""A program for torchrun: trains small networks and writes what came of it.

torchrun --nproc-per-node 2 -m tests.distributed_run PHOTOS OUTPUT NAME...
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import torch
from torch import nn

from experiments.data.folder import load_folder
from experiments.networks.model import ModelError, new_classifier
from experiments.storage import save_checkpoint, save_json
from experiments.training.device import Compute
from experiments.training.distributed import current_team, led_by_first_process
from experiments.training.photos import Photos
from experiments.training.recipe import Recipe
from experiments.training.scoring import Score
from experiments.training.steps import Stepper
from experiments.training.trainer import Trainer
from lca_fused.backbones import small_resnet
from lca_fused.preprocessing import Preprocessing
from tests.products import write_weights

# 36 training photos: 4 steps an epoch, the last of 6; of 7 a step, 6 steps, the last of 1.
PLAIN = Recipe(epochs=3, batch_size=10, image_size=32)
RECIPES = {
    "plain": PLAIN,
    "a last step of one photo": dataclasses.replace(PLAIN, batch_size=7),
    "accumulated": dataclasses.replace(PLAIN, accumulate=3),
    "balanced, averaged": dataclasses.replace(PLAIN, balanced=True, ema_decay=0.9),
    "patient": dataclasses.replace(PLAIN, patience=1),
    "bfloat16": PLAIN,
    "float16, accumulated": dataclasses.replace(PLAIN, accumulate=2),
}
DIVERGING = dataclasses.replace(PLAIN, backbone_lr=1e30, head_lr=1e30)


class InterruptedRunError(Exception):
    """The program stops itself between two epochs."""


class FailingLoss(nn.CrossEntropyLoss):
    """Fails in the process of this rank, after some steps."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.steps = 0

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps > 5 and int(os.environ["RANK"]) == self.rank:
            raise RuntimeError(f"made to fail in process {self.rank}")
        return super().forward(logits, labels)


class DyingLoss(FailingLoss):
    """Ends its process without a word."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        try:
            return super().forward(logits, labels)
        except RuntimeError:
            os._exit(9)


def train(
    photos: Photos,
    recipe: Recipe,
    output: Path,
    *,
    precision: torch.dtype = torch.float32,
    loss: nn.Module | None = None,
    stop_after: int | None = None,
) -> None:
    """Train and write OUTPUT.json (the progress) and OUTPUT.pt (the weights)."""
    torch.manual_seed(0)
    model = new_classifier(small_resnet(), "lca", 3, recipe.image_size)
    trainer = Trainer(
        model,
        loss or nn.CrossEntropyLoss(),
        recipe,
        Compute(torch.device("cpu"), precision),
        seed=0,
        checkpoint=output.with_suffix(".checkpoint.pt"),
    )
    if recipe.patience:  # photos so simple never get worse by themselves
        scores = iter([Score(1 / epoch, 1.0, torch.empty(0)) for epoch in range(1, 99)])
        trainer._score = lambda *_: next(scores)  # type: ignore[method-assign]
    save = trainer._save

    def save_and_stop(stepper: Stepper) -> None:
        save(stepper)
        if trainer.progress.epoch == stop_after:
            raise InterruptedRunError

    trainer._save = save_and_stop  # type: ignore[method-assign]
    progress = trainer.fit(photos.train(0), photos.validation)
    rank = current_team().rank
    save_json({"history": progress.history, "rank": rank}, output.with_suffix(".json"))
    save_checkpoint(trainer.model.state_dict(), output.with_suffix(".pt"))


def train_by_name(name: str, photos: Photos, output: Path) -> None:
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    train(photos, RECIPES[name], output, precision=kinds.get(name.split(",")[0], torch.float32))


def load_photos(root: Path) -> Photos:
    dataset = load_folder(root, validation_fraction=0.3, train_repeats=3)
    return Photos.load(dataset, PLAIN, Preprocessing(image_size=PLAIN.image_size))


def run_study(root: Path, output: Path) -> None:
    from experiments import run_all  # slow to import, and the failing runs have no use for it

    output.mkdir()
    run_all.main(
        [
            *("folder", "--data-root", str(root), "--output", str(output)),
            *("--backbone", "embedded", "--weights", str(write_weights(output / "weights.pt"))),
            *("--methods", "gap", "--seeds", "0", "--device", "cpu", "--precision", "float32"),
            *("--recipe.epochs", "2", "--recipe.image-size", "32", "--recipe.batch-size", "6"),
            *("--workers", "1"),
        ]
    )


@led_by_first_process
def main() -> int:
    """Run what the command line names, one after the other."""
    root, output, *names = sys.argv[1:]
    photos = load_photos(Path(root))
    for name in names:
        path = Path(output) / name
        if name in RECIPES:
            train_by_name(name, photos, path)
        elif name == "interrupted":
            try:
                train(photos, RECIPES["plain"], path, stop_after=2)
            except InterruptedRunError:
                train(photos, RECIPES["plain"], path)
        elif name == "diverging":
            try:
                train(photos, DIVERGING, path)
            except ModelError as error:
                save_json(str(error), path.with_suffix(".json"))
        elif name == "BatchNorm learns":
            try:
                train(photos, dataclasses.replace(PLAIN, freeze_batch_norm=False), path)
            except ModelError as error:
                save_json(str(error), path.with_suffix(".json"))
        elif name == "run_all":
            run_study(Path(root), path)
        elif name == "leader fails":
            train(photos, PLAIN, path, loss=FailingLoss(rank=0))
        elif name == "helper fails":
            train(photos, PLAIN, path, loss=FailingLoss(rank=1))
        elif name == "helper dies":
            train(photos, PLAIN, path, loss=DyingLoss(rank=1))
        elif name == "leader leaves":
            raise SystemExit(0)
        else:
            raise ValueError(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
