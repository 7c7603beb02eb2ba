"""What torchrun's other processes do while the first one trains."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import torch
from torch import nn

from experiments.data.torch_dataset import PhotoDataset
from experiments.training.batches import Batches
from experiments.training.device import Compute, compute_of_process
from experiments.training.distributed import current_team
from experiments.training.recipe import Recipe
from experiments.training.steps import Stepper
from lca_fused.classifier import Classifier


@contextmanager
def helpers(
    stepper: Stepper, loss: nn.Module, photos: PhotoDataset, seed: int, workers: int
) -> Iterator[None]:
    """Let the team's other processes follow the first one's epochs in this context.

    In it the first process tells them the number of every epoch before it trains on it.

    Args:
        stepper: as it stands; the others begin with the same weights and optimiser state.
        loss: of the training.
        photos: the training photos; other machines need them at the same place.
        seed: of the order of photos.
        workers: processes that load photos, for each process of the team.
    """
    if stepper.team.size == 1:
        yield
        return
    task = partial(
        _help_to_train,
        stepper.model,
        loss,
        stepper.recipe,
        stepper.compute,
        stepper.scheduler.total_steps,
        stepper.state_dict(),
        _described(photos),
        photos.seed,
        seed,
        workers,
    )
    stepper.team.tell(task)
    try:
        stepper.join()
        yield
    finally:
        if not stepper.team.broken:
            stepper.team.tell(None)


def _help_to_train(
    model: Classifier,
    loss: nn.Module,
    recipe: Recipe,
    compute: Compute,
    steps: int,
    state: dict[str, Any],
    described: bytes,
    augmentation_seed: int,
    seed: int,
    workers: int,
) -> None:
    members = current_team()
    compute = compute_of_process(compute, members.local_rank)
    if compute.device.type == "cuda":
        torch.cuda.set_device(compute.device)  # or each process takes memory of the first GPU too
    stepper = Stepper(model, loss, recipe, compute, steps=steps, team=members)
    stepper.load_state_dict(state)
    photos = _loaded(described)
    photos.seed = augmentation_seed
    batches = Batches(
        photos,
        recipe,
        seed,
        rank=members.rank,
        size=members.size,
        workers=workers,
        pin_memory=compute.device.type == "cuda",
    )
    stepper.join()
    while (epoch := members.hear()) is not None:
        with members.in_step():
            stepper.epoch(batches, epoch, seed)


def _described(photos: PhotoDataset) -> bytes:
    """Return what a data set is made of, as bytes: a key that tells whether it is loaded."""
    return pickle.dumps((photos.samples, photos.transform, photos.repeats, photos.cache_side))


@lru_cache(maxsize=1)
def _loaded(described: bytes) -> PhotoDataset:
    samples, transform, repeats, cache_side = pickle.loads(described)
    return PhotoDataset(samples, transform, repeats=repeats, cache_side=cache_side)
