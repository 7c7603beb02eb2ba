"""What a classifier says of photos whose product is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.deploy.inference import PhotoReader
from experiments.training.device import Compute
from experiments.training.memory import Room, in_batches
from lca_fused.classifier import Classifier
from lca_fused.description import described
from lca_fused.evaluation import evaluation_mode

NO_CLASS = -1
"""Label of photos of a product that the classifier does not know."""


@dataclass(frozen=True, eq=False)
class LabelledPhotos:
    """Logits of n photos and their labels.

    Attributes:
        logits: (n, K) float64.
        labels: index of each photo's class, or `NO_CLASS`, (n,).
        names: name of each photo's product, n.
        paths: of the photos, n.
    """

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each photo's product is one of the classes, (n,)."""
        return self.labels != NO_CLASS

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each photo's likeliest class is its own, (n,)."""
        return self.logits.argmax(axis=1) == self.labels

    def of(self, photos: NDArray[np.int64] | NDArray[np.bool_]) -> LabelledPhotos:
        """Return some of the photos, by their numbers or a mask."""
        numbers = np.arange(len(self))[photos]
        return LabelledPhotos(
            self.logits[numbers],
            self.labels[numbers],
            tuple(self.names[number] for number in numbers),
            tuple(self.paths[number] for number in numbers),
        )

    def halves(self, seed: int) -> tuple[LabelledPhotos, LabelledPhotos]:
        """Return two halves, drawn by a seed."""
        order = np.random.default_rng(seed).permutation(len(self))
        middle = len(self) // 2
        return self.of(np.sort(order[:middle])), self.of(np.sort(order[middle:]))


def look_at(
    classifier: Classifier,
    product_of: Mapping[Path, str],
    compute: Compute,
    reader: PhotoReader,
    *,
    batch_size: int,
    workers: int,
    progress: Callable[[int, Mapping[Path, str]], object],
) -> LabelledPhotos:
    """Return what a classifier says of photos; those that cannot be read are left out.

    Args:
        classifier: moved to the device of `compute`.
        product_of: name of its product by photo.
        compute: device and precision.
        reader: reads these photos.
        batch_size: photos that go through the network at once.
        workers: processes that decode photos.
        progress: called after each batch with the number of its photos, and those that could not be
            read and why.

    Raises:
        NoRoomError: memory does not hold the computation of one photo.
    """
    model = classifier.to(compute.device).to(memory_format=torch.channels_last)
    room = Room(None, "the classifier")
    index = {name: number for number, name in enumerate(described(classifier).classes)}
    logits, paths = [torch.empty(0, len(index))], []
    with evaluation_mode(model), torch.inference_mode():
        for batch in reader.batches(batch_size, workers):
            images = batch.images.to(compute.device, memory_format=torch.channels_last)
            if len(images):
                with compute.autocast():
                    logits.append(in_batches(model, images, room).float().cpu())
            paths += batch.readable
            progress(len(batch.paths), batch.unreadable)
    names = tuple(product_of[path] for path in paths)
    return LabelledPhotos(
        torch.cat(logits).double().numpy(),
        np.array([index.get(name, NO_CLASS) for name in names], dtype=np.int64),
        names,
        tuple(paths),
    )
