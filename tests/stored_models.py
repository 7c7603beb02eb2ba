"""Stored models of small untrained networks, as a finished cell leaves them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.networks.backbones import small_resnet
from experiments.networks.model import ProductClassifier
from experiments.storage import save_checkpoint
from experiments.study.methods import METHODS
from experiments.training.recipe import Recipe
from tests.products import COLOURS

SIDE = 48


def build(method: str = "lca", *, seed: int = 0) -> ProductClassifier:
    """Return a classifier of the products of `tests.products`, whose logits differ visibly."""
    torch.manual_seed(seed)
    head = METHODS[method].head
    assert head is not None
    model = ProductClassifier(small_resnet(), head, len(COLOURS), SIDE).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    return model


def settings(method: str = "lca") -> dict[str, Any]:
    return {
        "dataset": "folder",
        "method": method,
        "seed": 0,
        "backbone": "embedded",
        "recipe": asdict(Recipe(image_size=SIDE)),
        "precision": "float32",
    }


def write_model(
    path: Path,
    network: str = "lca",
    *,
    state: dict[str, Tensor] | None = None,
    **changed: Any,
) -> Path:
    """Write a stored model of the method `network`.

    `changed` replaces settings, None leaves one out.
    """
    merged = settings(network) | changed
    save_checkpoint(
        {
            "model": build(network).state_dict() if state is None else state,
            "classes": sorted(COLOURS),
            "settings": {key: value for key, value in merged.items() if value is not None},
        },
        path,
    )
    return path
