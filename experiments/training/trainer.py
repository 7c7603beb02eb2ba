"""The finetuning loop: SGD with momentum, warm-up and cosine, stopped and resumed at any epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, RandomSampler
from tqdm import tqdm

from experiments.data.torch_dataset import PhotoDataset
from experiments.device import Compute
from experiments.model import ModelError, ProductClassifier
from experiments.recipe import Recipe
from experiments.storage import load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class Score:
    """How well a model does on some photos.

    Attributes:
        accuracy: share of photos whose likeliest class is right, 0..1.
        loss: mean negative log-likelihood, nats.
        top5: (photos, up to 5) classes by falling probability, int64.
    """

    accuracy: float
    loss: float
    top5: Tensor


@dataclass
class Progress:
    """What a run has behind it; saved with every epoch.

    Attributes:
        epoch: epochs done.
        best_epoch: the epoch (from 1) whose weights `best_model` holds, 0 before the first.
        best_rank: (validation accuracy, epoch) of that epoch.
        best_model: its state dict.
        history: per epoch, training loss and validation accuracy and loss.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_rank: tuple[float, int] = (-1.0, 0)
    best_model: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Finetunes one model on one data set and keeps its best epoch.

    Every random draw is made from (seed, epoch, photo), so a run that was killed and started
    again ends like one that was not.

    Args:
        model: on the CPU; moved to the device here.
        loss: (N, K) logits and (N,) class indices to a scalar.
        recipe: the hyper-parameters.
        compute: device and precision.
        seed: of the augmentation and of the order of photos.
        checkpoint: file the state is kept in between epochs; continued from if it exists.
        title: shown beside the progress bar.
    """

    def __init__(
        self,
        model: ProductClassifier,
        loss: nn.Module,
        recipe: Recipe,
        compute: Compute,
        *,
        seed: int,
        checkpoint: Path,
        workers: int = 0,
        title: str = "",
    ) -> None:
        self.model = model.to(compute.device).to(memory_format=torch.channels_last)
        self.loss = loss.to(compute.device)
        self.recipe = recipe
        self.compute = compute
        self.seed = seed
        self.checkpoint = checkpoint
        self.workers = workers
        self.title = title
        self.progress = Progress()
        self._order = torch.Generator()
        self.optimizer = _make_optimizer(self.model, recipe)
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

    def fit(self, train: PhotoDataset, validation: PhotoDataset | None) -> Progress:
        """Train to the last epoch and load the best one's weights into the model.

        The best epoch has the highest validation accuracy. Few validation photos often tie; then
        the later epoch is kept, whose learning rate is lower. Without any it is the last.

        Raises:
            ModelError: the training loss is no longer a finite number.
        """
        batches = self._training_batches(train)
        steps = len(batches) * self.recipe.epochs
        scheduler = _make_scheduler(self.optimizer, self.recipe, steps)
        self._resume(scheduler)
        with tqdm(
            total=len(train) * self.recipe.epochs,
            initial=len(train) * self.progress.epoch,
            unit="img",
            desc=self.title,
            smoothing=0.05,
            mininterval=1.0,
        ) as bar:
            while self.progress.epoch < self.recipe.epochs:
                train.set_epoch(self.progress.epoch)
                mean_loss = self._train_epoch(batches, scheduler, bar)
                self._finish_epoch(mean_loss, validation, bar)
                self._save(scheduler)
        self.model.load_state_dict(self.progress.best_model)
        return self.progress

    def score(self, photos: PhotoDataset) -> Score:
        """Score the model's current weights on photos."""
        return self._score(self.model, photos)

    def _train_epoch(self, batches: DataLoader[Any], scheduler: Any, bar: Any) -> float:
        self.model.train()
        if self.recipe.freeze_batch_norm:
            self.model.freeze_batch_norm()
        torch.manual_seed(_mix(self.seed, self.progress.epoch))
        self._order.manual_seed(_mix(self.seed, self.progress.epoch))
        total, count = torch.zeros((), device=self.compute.device), 0
        for images, labels in batches:
            total += self._step(images, labels) * len(labels)
            count += len(labels)
            scheduler.step()
            bar.update(len(labels))
        mean_loss = total.item() / count
        if not math.isfinite(mean_loss):
            raise ModelError(
                f"{self.title}: the training loss became {mean_loss} in epoch "
                f"{self.progress.epoch + 1}; lower --recipe.backbone-lr and --recipe.head-lr"
            )
        return mean_loss

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        images, labels = _to_device(images, labels, self.compute.device)
        with self.compute.autocast():
            logits = self.model(images)
        loss = self.loss(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss.detach()

    def _finish_epoch(self, mean_loss: float, validation: PhotoDataset | None, bar: Any) -> None:
        progress = self.progress
        progress.epoch += 1
        record = {"epoch": progress.epoch, "train_loss": mean_loss}
        evaluated = self.model if self.average is None else self.average.module
        rank = (0.0, progress.epoch)
        if validation is not None:
            score = self._score(evaluated, validation)
            record |= {"validation_accuracy": score.accuracy, "validation_loss": score.loss}
            rank = (score.accuracy, progress.epoch)
        progress.history.append(record)
        if rank > progress.best_rank:
            progress.best_rank, progress.best_epoch = rank, progress.epoch
            progress.best_model = {
                key: value.detach().cpu().clone() for key, value in evaluated.state_dict().items()
            }
        bar.set_postfix({key: f"{value:.3g}" for key, value in record.items()})

    def _training_batches(self, train: PhotoDataset) -> DataLoader[Any]:
        return DataLoader(
            train,
            batch_size=self.recipe.batch_size,
            sampler=RandomSampler(train, generator=self._order),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.compute.device.type == "cuda",
        )

    def _score(self, model: nn.Module, photos: PhotoDataset) -> Score:
        # Decoded photos are ready sooner than workers would be.
        workers = 0 if photos.cached else self.workers
        batches = DataLoader(photos, batch_size=self.recipe.batch_size, num_workers=workers)
        return _score(model, batches, self.compute)

    def _save(self, scheduler: Any) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": vars(self.progress),
        }
        save_checkpoint(state, self.checkpoint)

    def _resume(self, scheduler: Any) -> None:
        if not self.checkpoint.exists():
            return
        state = load_checkpoint(self.checkpoint, self.compute.device)
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])


def _score(model: nn.Module, batches: DataLoader[Any], compute: Compute) -> Score:
    model.eval()
    correct, loss, count, top5 = 0, 0.0, 0, []
    with torch.inference_mode():
        for batch, batch_labels in batches:
            images, labels = _to_device(batch, batch_labels, compute.device)
            with compute.autocast():
                logits = model(images)
            log_p = logits.float().log_softmax(dim=1)
            correct += int((log_p.argmax(dim=1) == labels).sum())
            loss += float(nn.functional.nll_loss(log_p, labels, reduction="sum"))
            count += len(labels)
            top5.append(log_p.topk(min(5, log_p.shape[1])).indices.cpu())
    return Score(correct / count, loss / count, torch.cat(top5))


def _make_optimizer(model: ProductClassifier, recipe: Recipe) -> torch.optim.Optimizer:
    groups = [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for module, rate in (
            (model.features, recipe.backbone_lr),
            (nn.ModuleList([model.head, model.classifier]), recipe.head_lr),
        )
        for parameters, decay in _split_by_decay(module, recipe.weight_decay)
    ]
    return torch.optim.SGD(groups, momentum=recipe.momentum)


def _split_by_decay(module: nn.Module, decay: float) -> Iterator[tuple[list[nn.Parameter], float]]:
    """Yield the matrices and kernels with `decay`, then biases and normalisation with none."""
    parameters = list(module.parameters())
    for chosen, its_decay in (
        ([p for p in parameters if p.dim() > 1], decay),
        ([p for p in parameters if p.dim() <= 1], 0.0),
    ):
        if chosen:
            yield chosen, its_decay


def _make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=recipe.warmup,
        cycle_momentum=False,
        anneal_strategy="cos",
    )


def _to_device(images: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return images, labels.to(device, non_blocking=True)


def _mix(seed: int, epoch: int) -> int:
    """Return one number for a seed and an epoch; neighbouring seeds share no epoch."""
    return seed * 1_000_003 + epoch
