"""Makes the weights of the small backbone that come with the code, in the place ImageNet has.

    python -m experiments.training.pretraining

It learns to tell 512 generated products apart, most of families drawn by lot; no scenario of the
study holds any of them.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import tyro
from safetensors.torch import save
from torch import Tensor, nn

from experiments.console import set_up_console
from experiments.data.augment import SMALL_PHOTOS
from experiments.data.cut_out import cut_out
from experiments.data.dataset import ProductDataset, dataset_digest
from experiments.data.generated.scenarios import GENERATOR_VERSION, load_scenario
from experiments.networks.backbones import BUNDLED
from experiments.networks.model import new_classifier
from experiments.outputs import check_file, check_folder
from experiments.storage import write_atomically
from experiments.training.device import Compute, resolve_compute
from experiments.training.photos import Photos
from experiments.training.recipe import Recipe
from experiments.training.shared_memory import training_workers
from experiments.training.trainer import Trainer
from lca_fused.backbones import find_backbone
from lca_fused.classifier import Classifier

PRETRAINING = Recipe(
    epochs=12,
    batch_size=64,
    backbone_lr=0.1,
    head_lr=0.1,
    weight_decay=5e-4,
    freeze_batch_norm=False,
    image_size=112,
    augmentation=SMALL_PHOTOS,
)
"""From scratch: a higher rate than finetuning, and BatchNorm learns its statistics."""


def main(file: Path = BUNDLED, output: Path = Path("runs/pretraining")) -> None:
    """Pretrains the small backbone; an interrupted run goes on after its last finished epoch.

    Args:
        file: safetensors file that the weights are written to, in float16.
        output: folder of the photos and of the checkpoint.
    """
    set_up_console()
    check_file(file, "--file")
    check_folder(output, "--output")
    size = PRETRAINING.image_size
    dataset = cut_out(load_scenario("pretraining", output, image_size=size), "auto")
    compute = resolve_compute()
    model, accuracy = pretrain(dataset, PRETRAINING, compute, output / "checkpoint.pt")
    provenance = {
        "made by": "python -m experiments.training.pretraining",
        "generator version": str(GENERATOR_VERSION),
        "photos": dataset_digest(dataset),
        "classes": str(len(dataset.classes)),
        "test accuracy": f"{accuracy:.4f}",
        "recipe": json.dumps(asdict(PRETRAINING)),
        "precision": str(compute.precision),
        "torch": torch.__version__,
    }
    content = save(_halves(model.backbone), metadata=provenance)
    write_atomically(file, lambda stream: stream.write(content))
    logging.info("%.1f %% of the test photos recognised; written to %s", 100 * accuracy, file)


def pretrain(
    dataset: ProductDataset, recipe: Recipe, compute: Compute, checkpoint: Path
) -> tuple[Classifier, float]:
    """Train the small backbone from scratch with average pooling; return it and its accuracy.

    Args:
        dataset: photos of the products that it learns to tell apart.
        recipe: how, with an image size.
        compute: device and precision.
        checkpoint: file that the state is kept in between epochs, continued from if it exists.

    Returns:
        The classifier and its share of hits on the test photos.
    """
    backbone = find_backbone("embedded").at(recipe.image_size)
    photos = Photos.load(dataset, recipe, backbone.preprocessing)
    torch.manual_seed(0)
    model = new_classifier(backbone.build(), "gap", len(dataset.classes), recipe.image_size)
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        recipe,
        compute,
        seed=0,
        checkpoint=checkpoint,
        workers=training_workers(compute, None, recipe),
        title="pretraining the small backbone",
    )
    trainer.fit(photos.train(0), photos.validation)
    return trainer.model, trainer.score(photos.test).accuracy


def _halves(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in state.items()
    }


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (OSError, ValueError) as problem:
        sys.exit(f"error: {problem}")
