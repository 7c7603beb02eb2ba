"""A picture a photo: where the evidence for its class is, and the local concepts behind it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.data.own_output import PICTURE_METADATA
from experiments.networks.backbones import Normalization
from experiments.networks.checkpoint import LoadedClassifier
from experiments.networks.heads import HEADS
from experiments.study.methods import METHODS
from lca_fused import LCA, Explanation, explain
from lca_fused.explanation_plots import draw_concepts, draw_heat_map

_SIZE = (13.0, 4.0)  # inches
_DPI = 100
_LONGEST_NAME = 230  # bytes; file systems take 255, with "-1000.png" and what encryption adds


class ExplanationError(ValueError):
    """The model's logits are no sums over rectangles, so there is nothing to draw."""


class ExplanationImages:
    """Writes PNG files into a folder.

    Args:
        classifier: whose predictions are explained.
        folder: made if needed; a file of the same name is replaced.

    Raises:
        ExplanationError: the classifier's head is not LCA.
    """

    def __init__(self, classifier: LoadedClassifier, folder: Path) -> None:
        if not isinstance(classifier.model.head, LCA):
            method = classifier.settings["method"]
            able = [name for name, entry in METHODS.items() if HEADS.get(entry.head or "") is LCA]
            raise ExplanationError(
                f"the model's method is {method!r}, and only logits over LCA are sums over the "
                f"rectangles of a photo; leave out --explain, or take a model of {', '.join(able)}"
            )
        self.classifier = classifier
        self.folder = folder
        self._taken: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, paths: Sequence[Path], images: Tensor, classes: Sequence[int]) -> None:
        """Explain a class of each photo.

        Args:
            paths: of n photos; their names become those of the pictures.
            images: (n, 3, S, S), normalised, on the model's device.
            classes: index of the class to explain, n of them.
        """
        if not paths:
            return
        target = torch.tensor(classes, device=images.device)
        explanation = explain(self.classifier.model, images, target)
        photos = as_photos(images, self.classifier.normalization)
        for index, path in enumerate(paths):
            figure = draw(explanation, photos[index], index, self.classifier.classes)
            figure.savefig(self.folder / self._name(path), dpi=_DPI, metadata=PICTURE_METADATA)

    def _name(self, path: Path) -> str:
        """Return a name that no photo of this run had: folders may hold photos of equal names."""
        stem = _shortened(path.name)
        name, count = f"{stem}.png", 1
        while name.lower() in self._taken:
            count += 1
            name = f"{stem}-{count}.png"
        self._taken.add(name.lower())
        return name


def _shortened(name: str) -> str:
    """Return a name that leaves room for a suffix: its start and a hash where it is too long."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    start = encoded[: _LONGEST_NAME - len(digest) - 1].decode("utf-8", "ignore")
    return f"{start}-{digest}"


def draw(explanation: Explanation, photo: Tensor, index: int, classes: Sequence[str]) -> Figure:
    """Return the heat map of a photo (S, S, 3) uint8, and beside it its top local concepts."""
    name = classes[int(explanation.target[index])]
    figure = Figure(figsize=_SIZE, layout="constrained")
    left, right = cast(Any, figure.subfigures(1, 2, width_ratios=(1.0, 2.0)))
    draw_heat_map(left.add_subplot(), photo, explanation, index, class_name=name)
    draw_concepts(right, photo, explanation, index, class_name=name)
    return figure


def as_photos(images: Tensor, normalization: Normalization) -> Tensor:
    """Undo the normalisation: (n, 3, S, S) -> (n, S, S, 3) uint8 on the CPU."""
    mean = images.new_tensor(normalization.mean)[:, None, None]
    std = images.new_tensor(normalization.std)[:, None, None]
    pixels = (255 * (images * std + mean)).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu()
