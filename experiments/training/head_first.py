"""The head and the classifier trained alone, on maps of the frozen backbone.

What a pretrained backbone knows is kept where a head that has learnt something is put on it before
the backbone learns: arXiv 2202.10054.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from experiments.networks.model import ModelError
from experiments.training.device import Compute
from experiments.training.feature_maps import MapDataset, pooled
from experiments.training.recipe import Recipe
from experiments.training.trainer import Log, Progress, Trainer
from lca_fused import LCA
from lca_fused.classifier import Classifier

_ENOUGH = 2000  # maps: the moments of more are the same to any digit that matters


def train_head(
    model: Classifier,
    loss: nn.Module,
    recipe: Recipe,
    compute: Compute,
    train: MapDataset,
    validation: MapDataset | None,
    *,
    seed: int,
    checkpoint: Path,
    title: str,
    log: Log | None = None,
) -> Progress:
    """Train a model's head and classifier for `recipe.head_epochs`, and load the best epoch's.

    Args:
        model: whose backbone, which stays as it is, the maps are of.
        loss: (N, K) logits and (N,) class indices to their mean loss, a scalar.
        recipe: the hyper-parameters.
        compute: device and precision.
        train: maps of training photos.
        validation: maps of validation photos, or None.
        seed: seed of the order of photos.
        checkpoint: file of the state between epochs; continued from if it exists.
        title: text beside the progress bar.
        log: told of every epoch.

    Raises:
        ModelError: the training loss is no longer a finite number.
        CheckpointError: the checkpoint is not one of such a run.
    """
    with _standardised(model, train, compute) as head:
        progress = Trainer(
            head,
            loss,
            _of_the_head(recipe),
            compute,
            seed=seed,
            checkpoint=checkpoint,
            title=f"{title}, head",
            log=log,
        ).fit(train, validation)
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return replace(progress, best_model=state)


def _of_the_head(recipe: Recipe) -> Recipe:
    """Return the recipe of a training that has no backbone."""
    return replace(
        recipe, epochs=recipe.head_epochs, head_lr=recipe.probe_lr, finetune="all", freeze=0
    )


def start_whitened(layer: LCA, train: MapDataset) -> None:
    """Give a layer the weights that whiten the training photos' regions; raises as `whitened`."""
    layer.load_state_dict(whitened(train, layer.out_features).state_dict())


def whitened(train: MapDataset, out_features: int) -> LCA:
    """Return the layer that whitens the training photos' regions.

    Raises:
        ModelError: there are too few photos for so many features, or their number is odd.
    """
    maps = (train[index][0][None] for index in _spread(train))
    try:
        return LCA.from_features(maps, out_features)
    except ValueError as error:
        raise ModelError(
            f"the training photos cannot whiten LCA: {error}; or take a method without it, and "
            "--recipe.start random"
        ) from error


@contextmanager
def _standardised(model: Classifier, train: MapDataset, compute: Compute) -> Iterator[Classifier]:
    """Yield the model's head and classifier, which take maps; features have mean 0 and variance 1.

    Features of any head and of any size learn equally fast this way at one rate. Afterwards the
    linear classifier alone computes the same. One of cosines could not: it takes features as they
    are, whose size it does not see.
    """
    head = Classifier(nn.Identity(), model.pool, 0)
    linear = model.classifier
    if not isinstance(linear, nn.Linear):
        head.classifier = linear
        yield head
        return
    mean, deviation = _moments(model.pool, train, compute)
    head.classifier = nn.Sequential(_Standardise(mean, deviation), linear)
    yield head
    with torch.no_grad():
        linear.weight.div_(deviation)
        linear.bias.sub_(linear.weight @ mean)


class _Standardise(nn.Module):
    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation


def _moments(pool: nn.Module, train: MapDataset, compute: Compute) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the head's features, (D,) float32."""
    features, _ = pooled(pool, Subset(train, _spread(train)), compute)
    deviation, mean = torch.std_mean(features.to(compute.device), dim=0, correction=0)
    # A feature that is always 0 stays as it is.
    return mean, torch.where(deviation > 1e-6, deviation, 1.0)


def _spread(train: MapDataset) -> range:
    """Return numbers of items that are spread over all photos, `_ENOUGH` at most."""
    return range(0, len(train), -(-len(train) // _ENOUGH))
