"""A frozen backbone's maps of all photos, computed once and kept in a file for every head."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from experiments.data.dataset import Sample
from experiments.data.torch_dataset import GIB, PhotoDataset
from experiments.outputs import check_space, make_folder
from experiments.training.device import Compute
from experiments.training.memory import Room, in_batches
from experiments.training.recipe import Recipe
from lca_fused.evaluation import evaluation_mode

logger = logging.getLogger(__name__)

_BATCH = 32


class MapDataset(Dataset[tuple[Tensor, int]]):
    """Feature maps and their labels, in the place of a `PhotoDataset` of the same photos.

    Args:
        samples: the n photos.
        maps: (V, n, C, H, W) float16, V views of each photo; may be on disk.
        repeats: items per epoch for each photo; they and the epochs after them take the views in
            turn.

    Attributes:
        cached: True: items need no work.
    """

    cached = True

    def __init__(self, samples: tuple[Sample, ...], maps: np.ndarray, repeats: int = 1) -> None:
        self.samples = samples
        self.maps = maps
        self.repeats = repeats
        # Not `repeats`, which grow where classes are balanced: photos of large classes are drawn no
        # more often for that, and would see every so many views only, or one.
        self._views_per_epoch = repeats
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.samples) * self.repeats

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a map, (C, H, W) float32, and the label of its photo."""
        draw, photo = divmod(index, len(self.samples))
        view = (self.epoch * self._views_per_epoch + draw) % len(self.maps)
        of_photo = torch.from_numpy(self.maps[view, photo].astype(np.float32))
        return of_photo, self.samples[photo].label

    def set_epoch(self, epoch: int) -> None:
        """Take other views from now on."""
        self.epoch = epoch

    def of(self, labels: Sequence[int], most: int | None = None) -> MapDataset:
        """Return the maps of some classes alone, which are numbered anew, in the order given.

        Args:
            labels: the classes.
            most: photos of each, the first ones; None for all.
        """
        by_class: dict[int, list[int]] = {label: [] for label in labels}
        for number, sample in enumerate(self.samples):
            if sample.label in by_class:
                by_class[sample.label].append(number)
        chosen = [
            (new, number) for new, label in enumerate(labels) for number in by_class[label][:most]
        ]
        samples = tuple(replace(self.samples[number], label=new) for new, number in chosen)
        return MapDataset(samples, self.maps[:, [number for _, number in chosen]], self.repeats)


@dataclass(frozen=True)
class MapStore:
    """Computes the maps of one backbone, and keeps them in files that later calls read.

    Attributes:
        backbone: (N, 3, S, S) -> (N, C, H, W), on the device of `compute`.
        compute: device and precision.
        folder: folder of the files.
        settings: everything the maps depend on but the views, as plain values.
    """

    backbone: nn.Module
    compute: Compute
    folder: Path
    settings: Mapping[str, Any]

    def training(self, photos: PhotoDataset, recipe: Recipe) -> MapDataset:
        """Return maps of augmented photos: `recipe.views` epochs of them, if its budget holds them.

        Raises:
            OutputError: the disk has no room for them, or the folder cannot be written to.
            ImageError: a photo cannot be read.
        """
        views = self._affordable_views(photos, recipe)
        maps = self._maps(photos, views, {"seed": photos.seed})
        drawn = maps.reshape(views * photos.repeats, len(photos.samples), *maps.shape[2:])
        return MapDataset(photos.samples, drawn, photos.repeats)

    def plain(self, photos: PhotoDataset, split: str = "validation") -> MapDataset:
        """Return maps of photos that are not augmented; raises as `training` does."""
        maps = self._maps(photos, 1, {"split": split, "seed": photos.seed})
        drawn = maps.reshape(photos.repeats, len(photos.samples), *maps.shape[2:])
        return MapDataset(photos.samples, drawn, photos.repeats)

    def _affordable_views(self, photos: PhotoDataset, recipe: Recipe) -> int:
        held = int(recipe.maps_gib * GIB) // _bytes(1, len(photos), *self._shape(photos))
        views = max(1, min(recipe.views, held))
        if views < recipe.views:
            logger.info(
                "%d views of each training photo rather than %d: more maps would take over %g GiB "
                "(--recipe.maps-gib)",
                views,
                recipe.views,
                recipe.maps_gib,
            )
        return views

    def _shape(self, photos: PhotoDataset) -> tuple[int, ...]:
        """Return (C, H, W) of a photo's map."""
        return tuple(self._of(photos[0][0][None], Room(1, "the backbone")).shape[1:])

    def _maps(self, photos: PhotoDataset, views: int, more: Mapping[str, Any]) -> np.ndarray:
        """Return (views, items, C, H, W) float16, on disk."""
        text = json.dumps([dict(self.settings), dict(more), views], sort_keys=True)
        file = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.npy"
        if not file.exists():
            make_folder(self.folder, "the folder of feature maps")
            shape = (views, len(photos), *self._shape(photos))
            check_space(self.folder, _bytes(*shape), "feature maps (fewer with --recipe.views)")
            unfinished = file.with_name(f".{uuid.uuid4().hex}.tmp")
            try:
                self._write(photos, shape, unfinished)
                unfinished.replace(file)
            finally:
                unfinished.unlink(missing_ok=True)
        stored: np.ndarray = np.load(file, mmap_mode="r")
        return stored

    def _write(self, photos: PhotoDataset, shape: tuple[int, ...], file: Path) -> None:
        room = Room(self.compute.photos_at_once, "the backbone")
        maps = np.lib.format.open_memmap(file, "w+", dtype=np.float16, shape=shape)
        with tqdm(total=shape[0] * shape[1], unit="img", desc="feature maps") as bar:
            for view in range(shape[0]):
                photos.set_epoch(view)
                first = 0
                for images, _ in DataLoader(photos, batch_size=_BATCH):
                    maps[view, first : first + len(images)] = self._of(images, room).cpu().numpy()
                    first += len(images)
                    bar.update(len(images))
        maps.flush()

    def _of(self, images: Tensor, room: Room) -> Tensor:
        """Return the maps of a batch, float16."""
        images = images.to(self.compute.device, memory_format=torch.channels_last)
        with evaluation_mode(self.backbone), torch.inference_mode(), self.compute.autocast():
            return in_batches(self.backbone, images, room).half()


def pooled(pool: nn.Module, maps: Dataset[Any], compute: Compute) -> tuple[Tensor, Tensor]:
    """Return what a head makes of maps, on the CPU, and their labels.

    Args:
        pool: (N, C, H, W) -> (N, D); it is moved to the device.
        maps: n items of a `MapDataset`.
        compute: device and precision.

    Returns:
        (n, D) float32 and (n,) int64.
    """
    features, labels = [], []
    room = Room(compute.photos_at_once, "the head")
    with evaluation_mode(pool.to(compute.device)), torch.inference_mode(), compute.autocast():
        for batch, batch_labels in DataLoader(maps, batch_size=_BATCH):
            features.append(in_batches(pool, batch.to(compute.device), room).float().cpu())
            labels.append(batch_labels)
    return torch.cat(features).clone(), torch.cat(labels)


def _bytes(*shape: int) -> int:
    """Return how many bytes maps take, float16."""
    return 2 * math.prod(shape)
