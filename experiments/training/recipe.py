"""How a classifier is finetuned: every number of the recipe, typed, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from experiments.data.augment import Augmentation
from lca_fused.backbones import find_backbone


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum, as in the paper (section 4); rates rise and fall by half a cosine each."""

    epochs: int = 12
    """Passes over the training photos (each drawn the data set's `train_repeats` times), with
    `finetune` other than head."""
    finetune: Literal["head", "last-stages", "all"] = "all"
    """What learns from the photos: everything; the last third of the backbone's groups of layers,
    and the head; or the head alone, on maps of the frozen backbone, in minutes on a CPU."""
    head_epochs: int = 0
    """Passes over the backbone's maps of the training photos, in which the head learns alone,
    before anything else does."""
    views: int = 4
    """Augmented maps of each training photo, computed once; passes take them in turn."""
    maps_gib: float = 2.0
    """GiB on the disk for the maps of the training photos; fewer views are taken where they hold
    no more."""
    start: Literal["random", "whitened"] = "random"
    """What LCA's layer starts from: noise, or the projection that whitens the training photos'
    regions (`LCA.from_features`)."""
    batch_size: int = 16
    """Photos per step, of all processes and accumulated parts together."""
    accumulate: int = 1
    """Parts that a step's photos are computed in, one after the other: less memory, the same step
    (but for BatchNorm, where it learns: its statistics are those of a part)."""
    balanced: bool = False
    """Draw all classes equally often; an epoch has as many photos as without."""
    backbone_lr: float = 0.005
    """Peak learning rate of the pretrained backbone."""
    head_lr: float = 0.02
    """Peak learning rate of the pooling head and the classifier, which start from noise."""
    probe_lr: float = 0.02
    """Peak learning rate of the head while it learns alone (`head_epochs`)."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty of weights; biases and normalisation parameters have none."""
    warmup: float = 0.2
    """Share of the steps spent raising the learning rate to its peak."""
    clip_norm: float = 5.0
    """Gradients longer than this are shortened to it."""
    ema_decay: float = 0.0
    """Decay per step of the moving average of the weights that is evaluated; 0 evaluates the
    weights themselves."""
    patience: int = 0
    """Stop after this many epochs in a row without a better validation accuracy (a tie counts as
    better, as where the best epoch is chosen); 0 never."""
    freeze_batch_norm: bool = True
    """Keep the backbone's BatchNorm statistics: few photos would spoil them."""
    gamma: float = 0.6
    """Weight of the entropy in the maximum-entropy loss (`MaxEntropyLoss.gamma`)."""
    image_size: int = 0
    """Side of the square the network sees, in pixels; 0: what its pretrained weights saw."""
    freeze: int = 0
    """Groups of the backbone's layers, from its input on, that stay as they are."""
    layer_decay: float = 1.0
    """What the learning rate of a group of the backbone's layers is to that of the group behind
    it; below 1 the first layers, which all photos share, change less."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How training photos are distorted."""

    def __post_init__(self) -> None:
        positive = (
            *("epochs", "views", "maps_gib", "batch_size"),
            *("backbone_lr", "head_lr", "probe_lr", "clip_norm", "layer_decay"),
        )
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"recipe.{name} is {getattr(self, name)}; expected more than 0")
        if not 1 <= self.accumulate <= self.batch_size:
            raise ValueError(
                f"recipe.accumulate is {self.accumulate}; expected 1 to recipe.batch_size "
                f"({self.batch_size}): a part needs a photo"
            )
        if self.finetune == "head" and self.head_epochs < 1:
            raise ValueError(
                "recipe.finetune is head, but recipe.head_epochs is "
                f"{self.head_epochs}; expected 1 or more: the head learns in these alone"
            )
        for name in ("head_epochs", "weight_decay", "patience", "gamma", "image_size", "freeze"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"recipe.{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("momentum", "warmup", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"recipe.{name} is {getattr(self, name)}; expected 0 up to below 1"
                )
        if self.layer_decay > 1:
            raise ValueError(f"recipe.layer_decay is {self.layer_decay}; expected 1 or less")

    def for_backbone(self, name: str) -> Recipe:
        """Return the recipe with the image size of a backbone where it has none of its own.

        Raises:
            BackboneError: there is no such backbone.
        """
        size = self.image_size or find_backbone(name).preprocessing.image_size
        return replace(self, image_size=size)
