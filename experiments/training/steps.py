"""Training steps: the part of training that every process has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments.networks.model import ModelError
from experiments.training import distributed
from experiments.training.batches import Batches, LoadedPart, Part
from experiments.training.device import Compute
from experiments.training.layer_groups import freeze, frozen_groups, keep_frozen_statistics
from experiments.training.memory import Room
from experiments.training.optimization import make_optimizer, make_scheduler
from experiments.training.order import epoch_seed
from experiments.training.recipe import Recipe
from experiments.training.scoring import to_device
from lca_fused.classifier import Classifier


class Stepper:
    """Takes the steps of SGD, this process's share of them where there are more.

    A step's gradient is that of the mean loss over all its photos, whatever parts and processes
    compute it.

    Args:
        model: on the CPU; moved to the device here.
        loss: (N, K) logits and (N,) class indices to their mean loss, a scalar.
        recipe: the hyper-parameters.
        compute: device and precision.
        steps: of the whole run; the learning rate follows them.

    Attributes:
        evaluated: the model to score: the moving average of the weights, or the model itself.

    Raises:
        ModelError: BatchNorm would learn from several processes' photos, on the CPU.
    """

    def __init__(
        self,
        model: Classifier,
        loss: nn.Module,
        recipe: Recipe,
        compute: Compute,
        *,
        steps: int,
    ) -> None:
        self._processes = distributed.size()
        if self._processes > 1 and not recipe.freeze_batch_norm:
            model = _with_common_statistics(model, compute)
        self.model = model.to(compute.device).to(memory_format=torch.channels_last)
        self.loss = loss.to(compute.device)
        self.recipe = recipe
        self.compute = compute
        freeze(self.model.backbone, frozen_groups(self.model.backbone, recipe))
        self.optimizer = make_optimizer(self.model, recipe)
        self.scheduler = make_scheduler(self.optimizer, recipe, steps)
        self.scaler = torch.amp.GradScaler(
            compute.device.type, enabled=compute.precision == torch.float16
        )
        self.average = (
            AveragedModel(
                self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True
            )
            if recipe.ema_decay
            else None
        )
        self._room = Room(compute.photos_at_once, "training", _what_becomes_of_results(recipe))

    @property
    def evaluated(self) -> nn.Module:
        """The model to score: the moving average of the weights, or the model itself."""
        return self.model if self.average is None else self.average.module

    def epoch(
        self, batches: Batches, epoch: int, seed: int, done: Callable[[int], Any] = lambda _: None
    ) -> float:
        """Train on all photos once; return their mean loss, over all processes.

        Args:
            batches: this process's share of the photos.
            epoch: from 0.
            seed: of what the network itself draws (dropout).
            done: called with the number of photos after every step.
        """
        self.start_training()
        torch.manual_seed(epoch_seed(seed, epoch))
        total, count = torch.zeros((), device=self.compute.device), 0
        step: list[LoadedPart] = []
        for loaded in batches.epoch(epoch):
            step.append(loaded)
            part = loaded[0]
            count += part.photos
            if part.last:
                total += self.step(step)
                done(part.step_photos)
                step = []
        return distributed.mean(total, count)

    def start_training(self) -> None:
        """Put the model in training mode, with BatchNorm as the recipe has it."""
        self.model.train()
        if self.recipe.freeze_batch_norm:
            self.model.freeze_batch_norm()
        keep_frozen_statistics(self.model.backbone)

    def step(self, parts: Sequence[LoadedPart]) -> Tensor:
        """Move the weights by the parts of a step; return the sum of this process's losses.

        Where memory runs out the step starts anew, with half as many photos at a time.

        Raises:
            NoRoomError: memory does not hold the computation of one photo.
        """
        draws = _random_state(self.compute.device)

        def anew(at_once: int) -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            _set_random_state(draws, self.compute.device)
            return self._backward(parts, at_once)

        largest = max(part.largest for part, _, _ in parts)
        if self._processes > 1 and not self.recipe.freeze_batch_norm:
            loss = anew(largest)  # BatchNorm waits for the other processes
        else:
            loss = self._room.within(largest, anew)
        self.update()
        return loss

    def _backward(self, parts: Sequence[LoadedPart], at_once: int) -> Tensor:
        total = torch.zeros((), device=self.compute.device)
        for part, images, labels in parts:
            for where, piece in part.smaller(at_once):
                total += self.backward(images[where], labels[where], piece) * piece.photos
        return total

    def backward(self, images: Tensor, labels: Tensor, part: Part) -> Tensor:
        """Add a part's share of the step's gradient; return the part's mean loss, a scalar.

        Args:
            images: (n, 3, S, S) float32.
            labels: (n,) int64.
            part: which part of which step they are.
        """
        images, labels = to_device(images, labels, self.compute.device)
        with self.compute.autocast():
            logits = self.model(images)
        loss: Tensor = self.loss(logits.float(), labels)
        self.scaler.scale(loss * (part.photos / part.step_photos)).backward()
        return loss.detach()

    def update(self) -> None:
        """Move the weights along the gradient that the parts of all processes add up to.

        A step whose gradient overflowed float16 is left out, and the schedule waits for the next.
        """
        distributed.add_up([p.grad for p in self.model.parameters() if p.grad is not None])
        scale = self.scaler.get_scale()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.get_scale() < scale:
            return
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later steps depend on, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])


def _what_becomes_of_results(recipe: Recipe) -> str:
    note = f"; steps are still of {recipe.batch_size} photos, and results those of the recipe"
    if recipe.freeze_batch_norm:
        return note
    return note + ", but for BatchNorm, whose statistics are those of the photos at a time"


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return what dropout draws from, on the CPU and on a GPU."""
    on_gpu = None
    if device.type == "cuda":
        on_gpu = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        on_gpu = torch.mps.get_rng_state()
    return torch.get_rng_state(), on_gpu


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    on_cpu, on_gpu = state
    torch.set_rng_state(on_cpu)
    if on_gpu is None:
        return
    if device.type == "mps":
        torch.mps.set_rng_state(on_gpu)
    else:
        torch.cuda.set_rng_state(on_gpu, device)


def _with_common_statistics(model: Classifier, compute: Compute) -> Classifier:
    if compute.device.type != "cuda":
        raise ModelError(
            "recipe.freeze_batch_norm is off, and torch shares BatchNorm's statistics between "
            f"processes on GPUs only, not on {compute.device.type}; train with one process, or "
            "leave --recipe.freeze-batch-norm on"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
