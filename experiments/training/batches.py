"""The training photos of an epoch, cut into steps and these into what is computed at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from experiments.data.torch_dataset import PhotoDataset
from experiments.training.feature_maps import MapDataset
from experiments.training.order import balanced, epoch_generator, most_draws, shuffled
from experiments.training.recipe import Recipe


@dataclass(frozen=True)
class Part:
    """Photos of one forward pass of one process.

    Attributes:
        items: numbers of the photos, as `PhotoDataset` counts them.
        photos: number of items that count: none where this is only a stand-in, because the step has
            fewer photos than there are parts to fill.
        step_photos: number of photos of the whole step, in all its parts and processes.
        last: whether it is this process's last part of the step.
        largest: number of photos of the largest part of the step, in all processes.
    """

    items: tuple[int, ...]
    photos: int
    step_photos: int
    last: bool
    largest: int

    def smaller(self, at_once: int) -> Iterator[tuple[slice, Part]]:
        """Yield parts of at most so many photos, with their places in this one.

        They are those that a larger `accumulate` makes.
        """
        pieces = -(-len(self.items) // at_once)
        for number in range(pieces):
            items = self.items[number::pieces]
            photos = len(items) if self.photos else 0
            piece = replace(self, items=items, photos=photos, last=number == pieces - 1)
            yield slice(number, None, pieces), piece


LoadedPart = tuple[Part, Tensor, Tensor]
"""A part with its images (n, 3, S, S) float32 and labels (n,) int64."""


def cut(
    order: Sequence[int], batch_size: int, *, accumulate: int = 1, rank: int = 0, size: int = 1
) -> list[Part]:
    """Cut an epoch into the parts that one process computes.

    Every process gets equally many parts, since all of them add up their gradients together;
    which photos make up a step depends on neither `accumulate` nor `size`.

    Args:
        order: item numbers of the whole epoch.
        batch_size: photos per step; the last step may have fewer.
        accumulate: parts per step that each process computes.
        rank: number of this process, from 0.
        size: number of processes.
    """
    parts = []
    for start in range(0, len(order), batch_size):
        step = order[start : start + batch_size]
        # Steps with fewer photos than parts: processes stay in step, nobody computes for nothing.
        needed = min(accumulate, -(-len(step) // size))
        for turn in range(needed):
            mine = tuple(step[turn * size + rank :: needed * size])
            largest = -(-len(step) // (needed * size))
            parts.append(
                Part(mine or (step[0],), len(mine), len(step), turn == needed - 1, largest)
            )
    return parts


class Batches:
    """Training photos, augmented, in the order and the parts that one process computes.

    Args:
        photos: the training photos.
        recipe: settings of the finetuning: batch size, accumulation and how photos are drawn.
        seed: seed of the order of photos.
        rank: number of this process, from 0.
        size: number of processes that share the photos.
        workers: number of worker processes that load and augment photos.
        pin_memory: whether batches are put where a GPU can fetch them on its own.
    """

    def __init__(
        self,
        photos: PhotoDataset | MapDataset,
        recipe: Recipe,
        seed: int,
        *,
        rank: int = 0,
        size: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._recipe = recipe
        self._seed = seed
        self._rank = rank
        self._size = size
        self._count = len(photos)
        self._labels = [sample.label for sample in photos.samples]
        self._photos = photos if not recipe.balanced else self._with_more_draws(photos)
        self._sampler = _PartSampler()
        self._loader = DataLoader(
            self._photos,
            batch_sampler=self._sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
        )

    @property
    def steps(self) -> int:
        """Optimiser steps per epoch."""
        return -(-self._count // self._recipe.batch_size)

    def epoch(self, epoch: int) -> Iterator[LoadedPart]:
        """Yield each part with its photos.

        Args:
            epoch: number of the epoch, from 0; the order and the augmentation depend on it and the
                seeds only.
        """
        self._photos.set_epoch(epoch)
        parts = cut(
            self._order(epoch),
            self._recipe.batch_size,
            accumulate=self._recipe.accumulate,
            rank=self._rank,
            size=self._size,
        )
        self._sampler.parts = parts
        for part, (images, labels) in zip(parts, self._loader, strict=True):
            yield part, images, labels

    def _order(self, epoch: int) -> list[int]:
        generator = epoch_generator(self._seed, epoch)
        if self._recipe.balanced:
            return balanced(self._labels, self._count, generator)
        return shuffled(self._count, generator)

    def _with_more_draws(self, photos: PhotoDataset | MapDataset) -> PhotoDataset | MapDataset:
        """Return the same photos with room for all draws of a rare class, each augmented afresh."""
        roomier = copy.copy(photos)
        roomier.repeats = max(photos.repeats, most_draws(self._labels, self._count))
        return roomier


class _PartSampler(Sampler[list[int]]):
    def __init__(self) -> None:
        self.parts: list[Part] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter([list(part.items) for part in self.parts])

    def __len__(self) -> int:
        return len(self.parts)
