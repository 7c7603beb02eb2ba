"""Stored classifiers of small untrained networks, as a finished cell leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from experiments.methods import METHODS
from experiments.networks.model import new_classifier
from lca_fused import Classifier
from lca_fused.backbones import find_backbone
from tests.products import COLOURS

SIDE = 48


def build(method: str = "lca", *, seed: int = 0, **described: Any) -> Classifier:
    """Return a classifier of the products of `tests.products`, whose logits differ visibly.

    `described` goes to `Classifier.describe`.
    """
    torch.manual_seed(seed)
    head = METHODS[method].head
    assert head is not None
    backbone = find_backbone("embedded").at(SIDE)
    classifier = new_classifier(backbone.build(), head, len(COLOURS), SIDE).eval()
    with torch.no_grad():
        classifier.classifier.weight.mul_(20)
    classifier.describe(**{"classes": sorted(COLOURS), "backbone": backbone} | described)
    return classifier


def write_model(folder: Path, method: str = "lca") -> Path:
    """Write a stored classifier of a method."""
    build(method, training={"method": method}).save_pretrained(folder)
    return folder
