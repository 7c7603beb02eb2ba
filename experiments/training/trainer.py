"""The finetuning loop: epochs, the best of them kept, stopped and resumed at any one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from experiments.data.torch_dataset import PhotoDataset
from experiments.networks.model import ModelError
from experiments.storage import CheckpointError, load_checkpoint, save_checkpoint
from experiments.training.batches import Batches
from experiments.training.device import Compute
from experiments.training.distributed import in_step, on_first, rank, size
from experiments.training.feature_maps import MapDataset
from experiments.training.memory import Room
from experiments.training.optimization import learning_rates
from experiments.training.recipe import Recipe
from experiments.training.scoring import Score, score
from experiments.training.steps import Stepper
from lca_fused.classifier import Classifier


@dataclass
class Progress:
    """What a run has behind it; saved with every epoch.

    Attributes:
        epoch: epochs done.
        best_epoch: the epoch (from 1) whose weights `best_model` holds, 0 before the first.
        best_rank: (validation accuracy, epoch) of that epoch.
        best_model: its state dict.
        history: per epoch, training loss and validation accuracy and loss.
        epoch_seconds: spent on the training photos of each epoch, validation not included.
        peak_bytes: the most GPU memory that tensors took in an epoch; None on a CPU.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_rank: tuple[float, int] = (-1.0, 0)
    best_model: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None

    def after(self, before: Progress) -> Progress:
        """Return all that a run has behind it where another one went before it."""
        if not before.history:
            return self
        later = [record | {"epoch": before.epoch + record["epoch"]} for record in self.history]
        return Progress(
            before.epoch + self.epoch,
            before.epoch + self.best_epoch if self.best_epoch else before.best_epoch,
            self.best_rank,
            self.best_model,
            before.history + later,
            self.epoch_seconds,
            self.peak_bytes,
        )


class Log(Protocol):
    """What is told of every epoch while a model trains; the first process alone has one."""

    def begin(self, epochs: int, train: PhotoDataset | MapDataset) -> None:
        """Training goes on after so many epochs, on these photos."""

    def epoch(self, record: Mapping[str, float], rates: Mapping[str, float], number: int) -> None:
        """An epoch's losses and accuracy, learning rates after it, and its number, from 1."""

    def close(self) -> None:
        """Training has ended, or failed."""


class Trainer:
    """Finetunes one model on one data set and keeps its best epoch.

    Every random draw is made from (seed, epoch, photo), so a run that was killed and started
    again ends like one that was not (bit for bit on a CPU; on a GPU sums may be taken in another
    order, as in any two runs there). Where torchrun started several processes all of them train;
    the batch size and everything else of the recipe mean the same as with one.

    Args:
        model: on the CPU; moved to the device here.
        loss: (N, K) logits and (N,) class indices to their mean loss, a scalar.
        recipe: the hyper-parameters.
        compute: device and precision.
        seed: of the augmentation and of the order of photos.
        checkpoint: file the state is kept in between epochs; continued from if it exists.
        workers: processes that load and augment photos.
        title: shown beside the progress bar.
        before: what the model has behind it; its best weights stay where no epoch is better.
        log: told of every epoch.
    """

    def __init__(
        self,
        model: Classifier,
        loss: nn.Module,
        recipe: Recipe,
        compute: Compute,
        *,
        seed: int,
        checkpoint: Path,
        workers: int = 0,
        title: str = "",
        before: Progress | None = None,
        log: Log | None = None,
    ) -> None:
        self.model = model.to(compute.device).to(memory_format=torch.channels_last)
        self.loss = loss
        self.recipe = recipe
        self.compute = compute
        self.seed = seed
        self.checkpoint = checkpoint
        self.workers = workers
        self.title = title
        self.before = before or Progress()
        self.log = log
        self._room = Room(compute.photos_at_once, "scoring")
        self.progress = Progress(
            best_rank=(self.before.best_rank[0], 0), best_model=self.before.best_model
        )

    def fit(
        self, train: PhotoDataset | MapDataset, validation: PhotoDataset | MapDataset | None
    ) -> Progress:
        """Train to the last epoch and load the best one's weights into the model.

        The best epoch has the highest validation accuracy. Few validation photos often tie; then
        the later epoch is kept, whose learning rate is lower. Without any it is the last.

        Raises:
            ModelError: the training loss is no longer a finite number.
            NoRoomError: the device's memory does not hold the computation of one photo.
            CheckpointError: the checkpoint is not one of such a run.
            SystemExit: one of several processes failed in the middle of an epoch.
        """
        batches = self._training_batches(train)
        stepper = Stepper(
            self.model,
            self.loss,
            self.recipe,
            self.compute,
            steps=batches.steps * self.recipe.epochs,
        )
        self._resume(stepper)
        with (
            self._logged(train),
            tqdm(
                total=len(train) * self.recipe.epochs,
                initial=len(train) * self.progress.epoch,
                unit="img",
                desc=self.title,
                smoothing=0.05,
                mininterval=1.0,
            ) as bar,
        ):
            while not self._finished():
                mean_loss = self._train_epoch(stepper, batches, bar)
                self._finish_epoch(stepper.evaluated, mean_loss, validation, bar)
                self._tell(stepper)
                self._save(stepper)
        self.model.load_state_dict(self.progress.best_model)
        return self.progress.after(self.before)

    def score(self, photos: PhotoDataset | MapDataset) -> Score:
        """Score the model's current weights on photos."""
        return self._score(self.model, photos)

    def _finished(self) -> bool:
        progress, patience = self.progress, self.recipe.patience
        gave_up = patience > 0 and progress.epoch - progress.best_epoch >= patience
        return gave_up or progress.epoch >= self.recipe.epochs

    def _train_epoch(self, stepper: Stepper, batches: Batches, bar: Any) -> float:
        epoch, start = self.progress.epoch, time.perf_counter()
        on_gpu = self.compute.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.compute.device)
        with in_step():
            mean_loss = stepper.epoch(batches, epoch, self.seed, bar.update)
        self.progress.epoch_seconds.append(time.perf_counter() - start)
        if on_gpu:
            peak = torch.cuda.max_memory_allocated(self.compute.device)
            self.progress.peak_bytes = max(peak, self.progress.peak_bytes or 0)
        if not math.isfinite(mean_loss):
            raise ModelError(
                f"{self.title}: the training loss became {mean_loss} in epoch "
                f"{epoch + 1}; lower --recipe.backbone-lr and --recipe.head-lr"
            )
        return mean_loss

    def _finish_epoch(
        self,
        evaluated: nn.Module,
        mean_loss: float,
        validation: PhotoDataset | MapDataset | None,
        bar: Any,
    ) -> None:
        progress = self.progress
        progress.epoch += 1
        record = {"epoch": progress.epoch, "train_loss": mean_loss}
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

    @contextmanager
    def _logged(self, train: PhotoDataset | MapDataset) -> Iterator[None]:
        if self.log is None:
            yield
            return
        self.log.begin(self.before.epoch + self.progress.epoch, train)
        try:
            yield
        finally:
            self.log.close()

    def _tell(self, stepper: Stepper) -> None:
        if self.log is not None:
            number = self.before.epoch + self.progress.epoch
            rates = learning_rates(stepper.optimizer)
            self.log.epoch(self.progress.history[-1], rates, number)

    def _training_batches(self, train: PhotoDataset | MapDataset) -> Batches:
        return Batches(
            train,
            self.recipe,
            self.seed,
            rank=rank(),
            size=size(),
            workers=self.workers,
            pin_memory=self.compute.device.type == "cuda",
        )

    @on_first
    def _score(self, model: nn.Module, photos: PhotoDataset | MapDataset) -> Score:
        # Decoded photos are ready sooner than workers would be.
        workers = 0 if photos.cached else self.workers
        batches = DataLoader(photos, batch_size=self.recipe.batch_size, num_workers=workers)
        return score(model, batches, self.compute, self._room)

    @on_first
    def _save(self, stepper: Stepper) -> None:
        save_checkpoint(stepper.state_dict() | {"progress": vars(self.progress)}, self.checkpoint)

    @on_first
    def _stored_state(self) -> dict[str, Any] | None:
        return load_checkpoint(self.checkpoint) if self.checkpoint.exists() else None

    def _resume(self, stepper: Stepper) -> None:
        state = self._stored_state()
        if state is None:
            return
        try:
            stepper.load_state_dict(state)
            self.progress = Progress(**state["progress"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise CheckpointError(
                f"{self.checkpoint} is not a checkpoint of this run ({reason}); delete it, or give "
                "another --output: the run then starts again"
            ) from error
