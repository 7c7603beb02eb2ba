"""Pretrains the small backbone of the embedded default, in the place ImageNet has in the paper."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from experiments.data.augment import SMALL_PHOTOS
from experiments.data.dataset import ProductDataset, dataset_digest
from experiments.data.generated.scenarios import is_rendered, load_scenario
from experiments.data.source import DataOptions
from experiments.networks.model import new_classifier
from experiments.storage import save_checkpoint
from experiments.training.device import Compute
from experiments.training.distributed import on_first
from experiments.training.photos import Photos
from experiments.training.recipe import Recipe
from experiments.training.trainer import Trainer
from lca_fused.backbones import find_backbone

PRETRAINING = Recipe(
    epochs=8,
    batch_size=16,
    backbone_lr=0.025,
    head_lr=0.025,
    weight_decay=5e-4,
    freeze_batch_norm=False,
    image_size=112,
    augmentation=SMALL_PHOTOS,
)
"""From scratch: a higher rate than finetuning, and BatchNorm learns its statistics."""

_SCENARIO = "pretraining"


def backbone_file(
    output: Path, photos: ProductDataset, pretraining: Recipe, precision: torch.dtype
) -> Path:
    """Return where under `output` the backbone that this pretraining on `photos` makes is kept."""
    settings = {
        "photos": dataset_digest(photos),
        "recipe": asdict(pretraining),
        "precision": str(precision),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return output / f"embedded-backbone-{digest}.pt"


def is_pretrained(output: Path, options: DataOptions, compute: Compute) -> bool:
    """Whether `pretrain_embedded_backbone` would have nothing to compute."""
    size = PRETRAINING.image_size
    if not is_rendered(_SCENARIO, options.cache, image_size=size):
        return False
    dataset = load_scenario(_SCENARIO, options.cache, image_size=size)
    return backbone_file(output, dataset, PRETRAINING, compute.precision).exists()


@on_first  # so small that other processes would not help, and its BatchNorm learns
def pretrain_embedded_backbone(
    output: Path, options: DataOptions, compute: Compute, workers: int
) -> Path:
    """Return the weights file of the "embedded" backbone under `output`, made if needed.

    It learns to tell products apart that none of the embedded scenarios holds. An interrupted
    run goes on after its last finished epoch.
    """
    dataset = load_scenario(_SCENARIO, options.cache, image_size=PRETRAINING.image_size)
    path = backbone_file(output, dataset, PRETRAINING, compute.precision)
    if path.exists():
        return path
    backbone = find_backbone("embedded").at(PRETRAINING.image_size)
    photos = Photos.load(dataset, PRETRAINING, backbone.preprocessing)
    torch.manual_seed(0)
    model = new_classifier(backbone.build(), "gap", len(dataset.classes), PRETRAINING.image_size)
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(),
        PRETRAINING,
        compute,
        seed=0,
        checkpoint=path.with_suffix(".checkpoint.pt"),
        workers=workers,
        title="pretraining the embedded backbone",
    )
    trainer.fit(photos.train(0), photos.validation)
    save_checkpoint(trainer.model.backbone.state_dict(), path)
    trainer.checkpoint.unlink(missing_ok=True)
    return path
