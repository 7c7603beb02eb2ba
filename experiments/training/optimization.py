"""SGD with momentum and its learning rates, as a recipe gives them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from experiments.networks.model import ModelError
from experiments.training.layer_groups import layer_groups, no_weight_decay
from experiments.training.recipe import Recipe
from lca_fused.classifier import Classifier


def make_optimizer(model: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with the backbone's and the head's own rates; biases are not decayed.

    The backbone's rate falls by `recipe.layer_decay` from a group of its layers to that before.
    """
    layers = layer_groups(model.backbone)
    rates = [recipe.backbone_lr * recipe.layer_decay**depth for depth in range(len(layers))]
    head = [p for module in (model.pool, model.classifier) for p in module.parameters()]
    undecayed = no_weight_decay(model.backbone)
    groups = [
        {"params": parameters, "lr": rate, "weight_decay": decay, "part": part}
        for part, group, rate in [
            *(("backbone", *of) for of in zip(layers, reversed(rates), strict=True)),
            ("head", head, recipe.head_lr),
        ]
        for parameters, decay in _split_by_decay(group, recipe.weight_decay, undecayed)
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


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the rates of the head and of the backbone's last trained layers, as they are now."""
    return {group["part"]: group["lr"] for group in optimizer.param_groups}


def _split_by_decay(
    parameters: list[nn.Parameter], decay: float, undecayed: set[int]
) -> Iterator[tuple[list[nn.Parameter], float]]:
    """Yield the matrices and kernels with `decay`, then biases and normalisation with none.

    Frozen parameters are left out, and `undecayed` are ids of others without a decay.
    """
    trained = [p for p in parameters if p.requires_grad]
    decayed = [p for p in trained if p.dim() > 1 and id(p) not in undecayed]
    others = [p for p in trained if p.dim() <= 1 or id(p) in undecayed]
    for chosen, its_decay in ((decayed, decay), (others, 0.0)):
        if chosen:
            yield chosen, its_decay
