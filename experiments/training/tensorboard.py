"""The curves of a training as TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from experiments.data.torch_dataset import PhotoDataset
from experiments.training.feature_maps import MapDataset

_SHOWN = 16


class TensorBoard:
    """Writes what each epoch came to, by its number in the report.

    Args:
        folder: folder of the event files; a run that goes on adds one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, epochs: int, train: PhotoDataset | MapDataset) -> None:
        """Go on after so many epochs: what was written of later ones is no longer shown.

        Args:
            epochs: number of epochs that are done.
            train: training photos; some are shown as they are trained on.
        """
        self._writer = SummaryWriter(str(self._folder), purge_step=epochs + 1)
        if isinstance(train, PhotoDataset):
            step = -(-len(train) // _SHOWN)
            shown = [train[number][0] for number in range(0, len(train), step)]
            self._writer.add_image("training photos", make_grid(shown, normalize=True), epochs + 1)

    def epoch(self, record: Mapping[str, float], rates: Mapping[str, float], number: int) -> None:
        """Write an epoch's losses, accuracy and learning rates.

        Args:
            record: the losses and the accuracy by name, as a result's history holds them.
            rates: learning rates after it by what they are of.
            number: number of the epoch, from 1.
        """
        scalars = {
            "loss/training": record["train_loss"],
            "loss/validation": record.get("validation_loss"),
            "accuracy/validation": record.get("validation_accuracy"),
            **{f"learning rate/{name}": rate for name, rate in rates.items()},
        }
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
