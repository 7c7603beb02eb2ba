"""What a training step costs: its time and peak memory, head by head on one backbone.

Heads take turns, step by step, so that whatever slows the machine slows all of them. Photos are
random numbers; the network, its gradients and the optimiser's step are those of the experiment.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.memory import peak_extra_bytes
from experiments.networks.backbones import load_network
from experiments.networks.model import new_classifier
from experiments.training.batches import cut
from experiments.training.device import Compute
from experiments.training.recipe import Recipe
from experiments.training.steps import Stepper
from lca_fused.backbones import find_backbone
from lca_fused.classifier import Classifier
from lca_fused.heads import HEADS as TRAINED_HEADS
from reference.lca import lca_reference

_WARM_UP = 2
ROUNDS = 10
"""Measured steps of each head, unless asked otherwise."""
CLASSES = 120
"""K of the classifier, unless asked otherwise: the paper's largest data set has so many."""


class LCAReference(nn.Linear):
    """LCA as the paper states it, (N, C, H, W) -> (N, C): what a training step costs with it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool every rectangle and project it."""
        return lca_reference(x, self.weight, self.bias)


HEADS: dict[str, Callable[[int], nn.Module]] = {**TRAINED_HEADS, "lca-reference": LCAReference}
"""Heads whose cost can be measured, by name."""


@dataclass(frozen=True)
class StepCost:
    """Cost of one optimiser step.

    Attributes:
        seconds: the median time over the rounds.
        rounds: the seconds of every round; those of heads compared belong together, pair by pair.
        images_per_second: photos per second at the median.
        peak_bytes: the most bytes of tensors held at a time: weights, gradients, momentum, photos
            and activations of this network alone. Memory that libraries take past torch is not
            counted.
        parameters: their number in the backbone, the head and the classifier together.
    """

    seconds: float
    rounds: tuple[float, ...]
    images_per_second: float
    peak_bytes: int
    parameters: int

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the rounds' seconds."""
        return _quartiles(self.rounds)

    def ratio(self, floor: StepCost) -> float:
        """Return the median, over the rounds, of this head's time to that of `floor`."""
        return statistics.median(self._ratios(floor))

    def ratio_quartiles(self, floor: StepCost) -> tuple[float, float]:
        """Return the first and third quartile of what `ratio` is the median of."""
        return _quartiles(self._ratios(floor))

    def _ratios(self, floor: StepCost) -> list[float]:
        return [mine / its for mine, its in zip(self.rounds, floor.rounds, strict=True)]


def step_costs(
    backbone: str,
    weights: Path | None,
    heads: Sequence[str],
    recipe: Recipe,
    compute: Compute,
    *,
    classes: int = CLASSES,
    rounds: int = ROUNDS,
) -> dict[str, StepCost]:
    """Measure a training step of a backbone with each of several heads, in turns.

    All networks are held at once, each with its momentum; gradients only in its turn.

    Args:
        backbone: as `lca_fused.backbones.find_backbone` takes it.
        weights: file of its pretrained weights; None for random ones, which take as long.
        heads: keys of `HEADS`.
        recipe: sets the batch size, photo size, accumulation and optimiser.
        compute: device and precision.
        classes: K of the classifier.
        rounds: measured steps of each head; two more come before them.

    Raises:
        ValueError: an unknown backbone or head, or no rounds.
        WeightsError: the file does not hold the backbone's weights.
        ModelError: photos of this size are too small for the backbone.
    """
    recipe = recipe.for_backbone(backbone)
    _check_names("head", heads, HEADS)
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected at least 1")
    network = _network(backbone, weights, recipe.image_size)
    steps = {
        head: _Step(
            new_classifier(copy.deepcopy(network), HEADS[head], classes, recipe.image_size),
            recipe,
            compute,
        )
        for head in heads
    }
    seconds = _in_turns(steps, _WARM_UP + rounds)
    return {head: step.cost(seconds[head][_WARM_UP:]) for head, step in steps.items()}


class _Step:
    """One network's training step on photos of random numbers, again and again."""

    def __init__(self, model: Classifier, recipe: Recipe, compute: Compute) -> None:
        # Rates so small that a long measurement cannot diverge take as long as others.
        gentle = replace(recipe, backbone_lr=1e-6, head_lr=1e-6)
        self.stepper = Stepper(model, nn.CrossEntropyLoss(), gentle, compute, steps=1_000_000)
        self.stepper.start_training()
        device, size = compute.device, recipe.image_size
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(recipe.batch_size, 3, size, size, generator=generator)
        classes = model.num_classes
        labels = torch.randint(classes, (recipe.batch_size,), generator=generator)
        self.images, self.labels = images.to(device), labels.to(device)
        self.parts = cut(range(recipe.batch_size), recipe.batch_size, accumulate=recipe.accumulate)

    def __call__(self) -> None:
        for part in self.parts:
            chosen = list(part.items)
            self.stepper.backward(self.images[chosen], self.labels[chosen], part)
        self.stepper.update()

    def cost(self, seconds: Sequence[float]) -> StepCost:
        median = statistics.median(seconds)
        device = self.stepper.compute.device
        return StepCost(
            seconds=median,
            rounds=tuple(seconds),
            images_per_second=len(self.images) / median,
            peak_bytes=self._resident_bytes() + peak_extra_bytes(self, device),
            parameters=sum(weight.numel() for weight in self.stepper.model.parameters()),
        )

    def _resident_bytes(self) -> int:
        """Return the bytes that are held between steps."""
        held = [self.images, self.labels, *self.stepper.model.state_dict().values()]
        held += _tensors(self.stepper.optimizer.state_dict()["state"])
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


def _network(backbone: str, weights: Path | None, image_size: int) -> nn.Module:
    if weights is not None:
        return load_network(backbone, weights, image_size)
    torch.manual_seed(0)
    network = find_backbone(backbone).at(image_size).build()
    _measure_statistics(network, torch.randn(2, 3, image_size, image_size))
    return network


def _measure_statistics(network: nn.Module, images: Tensor) -> None:
    """Set BatchNorm's statistics to those of `images`: a random network's map stays in range."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(images)
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum


def _in_turns(steps: dict[str, _Step], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {head: [] for head in steps}
    order = list(steps)
    for _ in range(rounds):
        for head in order:
            seconds[head].append(_timed(steps[head]))
        order.append(order.pop(0))  # nobody always comes after the same one
    return seconds


def _timed(step: _Step) -> float:
    device = step.stepper.compute.device
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _check_names(what: str, given: Sequence[str], known: dict[str, Any]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise ValueError(
            f"{what} is {', '.join(unknown) or 'not given'}; expected from {', '.join(known)}"
        )
