"""What tells one stored result from another: fingerprints of recipes and of data sets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from experiments.data.augment import Augmentation
from experiments.data.dataset import ProductDataset, Sample
from experiments.training.recipe import Recipe

# What a recipe held when the first results were stored. What was added since counts only where it
# is not the default, so that adding it made no stored result another one.
_FIRST_RECIPE = """
    epochs batch_size backbone_lr head_lr momentum weight_decay warmup clip_norm ema_decay
    freeze_batch_norm gamma image_size augmentation
"""
_FIRST_AUGMENTATION = """
    crop_scale crop_ratio rotation perspective perspective_probability brightness contrast
    saturation hue blur erase center_crop
"""


def recipe_identity(recipe: Recipe | Augmentation) -> dict[str, Any]:
    """Return the recipe as plain values, less what was added later and is the default."""
    names = _FIRST_RECIPE if isinstance(recipe, Recipe) else _FIRST_AUGMENTATION
    first, defaults = names.split(), type(recipe)()
    identity = {}
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.name in first or value != getattr(defaults, field.name):
            identity[field.name] = (
                recipe_identity(value) if isinstance(value, Augmentation) else value
            )
    return identity


def backbone_file(output: Path, pretraining: Recipe, precision: torch.dtype) -> Path:
    """Return where under `output` the "embedded" backbone of this pretraining is kept."""
    settings = {"recipe": recipe_identity(pretraining), "precision": str(precision)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return output / f"embedded-backbone-{digest}.pt"


def dataset_digest(dataset: ProductDataset) -> str:
    """Return a fingerprint of which photos are used for what; their folder does not matter."""
    parts: list[str] = [*dataset.classes, str(dataset.train_repeats)]
    for split in (dataset.train, dataset.validation, dataset.test):
        parts += ["split", *map(_identity, split)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _identity(sample: Sample) -> str:
    photo = f"{'/'.join(sample.path.parts[-3:])} {sample.path.stat().st_size} {sample.label}"
    return photo if sample.mask is None else f"{photo} cut out {sample.mask.stat().st_size}"
