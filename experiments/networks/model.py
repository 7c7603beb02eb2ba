"""The classifier that is finetuned: pretrained backbone, pooling head, linear classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.networks.heads import HEADS


class ModelError(ValueError):
    """A network cannot be built or trained as asked; the message says what to change."""


class ProductClassifier(nn.Module):
    """Backbone -> head -> linear classifier.

    Args:
        features: images (N, 3, S, S) -> map (N, C, H, W), pretrained.
        head: key of `experiments.networks.heads.HEADS`.
        num_classes: K.
        image_size: S, in pixels.

    Shape:
        (N, 3, S, S) -> (N, K) logits.

    Raises:
        ModelError: photos of this size leave a 1x1 map, or `features` returns no map.
    """

    def __init__(self, features: nn.Module, head: str, num_classes: int, image_size: int) -> None:
        super().__init__()
        channels = _channels(features, image_size)
        self.features = features
        self.head = HEADS[head](channels)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) for normalised images (N, 3, S, S)."""
        return self.classifier(self.head(self.features(images)))

    def freeze_batch_norm(self) -> None:
        """Put the backbone's BatchNorm layers in evaluation mode: their statistics stay."""
        for module in self.features.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _channels(features: nn.Module, image_size: int) -> int:
    """Return C of the map that photos of `image_size` pixels give."""
    features.eval()
    with torch.no_grad():
        shape = tuple(features(torch.zeros(1, 3, image_size, image_size)).shape)
    if len(shape) != 4 or shape[2:] == (1, 1):
        raise ModelError(
            f"the backbone turns {image_size} px photos into {shape}; expected a feature map "
            "(1, C, H, W) larger than 1x1: raise --recipe.image-size or take another --backbone"
        )
    return shape[1]
