"""SGD with momentum and its learning rates, as a recipe gives them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from experiments.networks.model import ModelError, ProductClassifier
from experiments.training.recipe import Recipe


def make_optimizer(model: ProductClassifier, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with the backbone's and the head's own rates; biases are not decayed."""
    groups = [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for module, rate in (
            (model.features, recipe.backbone_lr),
            (nn.ModuleList([model.head, model.classifier]), recipe.head_lr),
        )
        for parameters, decay in _split_by_decay(module, recipe.weight_decay)
    ]
    return torch.optim.SGD(groups, momentum=recipe.momentum)


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> OneCycleLR:
    """Return the warm-up and cosine decay over `steps` optimiser steps.

    Raises:
        ModelError: there is one step alone, whose rate would be that of the decay's end.
    """
    if steps == 1:
        raise ModelError(
            "the run is one step alone, whose learning rate would be next to nothing; raise "
            "--recipe.epochs or lower --recipe.batch-size"
        )
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        # It divides by the difference of the two.
        pct_start=0.0 if recipe.warmup * steps == 1 else recipe.warmup,
        cycle_momentum=False,
        anneal_strategy="cos",
    )


def _split_by_decay(module: nn.Module, decay: float) -> Iterator[tuple[list[nn.Parameter], float]]:
    """Yield the matrices and kernels with `decay`, then biases and normalisation with none."""
    parameters = list(module.parameters())
    for chosen, its_decay in (
        ([p for p in parameters if p.dim() > 1], decay),
        ([p for p in parameters if p.dim() <= 1], 0.0),
    ):
        if chosen:
            yield chosen, its_decay
