"""The classifier that is finetuned, for photos of a given size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from lca_fused.classifier import Classifier, attach_head
from lca_fused.evaluation import evaluation_mode


class ModelError(ValueError):
    """A network cannot be built or trained as asked; the message says what to change."""


def new_classifier(
    network: nn.Module,
    head: str | Callable[[int], nn.Module],
    num_classes: int,
    image_size: int,
) -> Classifier:
    """Put a new head and a new linear classifier on a pretrained network.

    Args:
        network: network to attach the head to, as `lca_fused.attach_head` takes it.
        head: key of `lca_fused.heads.HEADS`, or a function that takes C and returns such a module.
        num_classes: number of classes K.
        image_size: side S of the photos, in pixels.

    Returns:
        (N, 3, S, S) -> (N, K) logits.

    Raises:
        ModelError: photos of this size leave a 1x1 map, or the network has none.
    """
    try:
        classifier = attach_head(network, head, num_classes)
        with evaluation_mode(classifier), torch.no_grad():
            shape = tuple(classifier.backbone(torch.zeros(1, 3, image_size, image_size)).shape)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise ModelError(f"no classifier for photos of {image_size} px: {error}") from error
    if shape[2:] == (1, 1):
        raise ModelError(
            f"the backbone turns {image_size} px photos into {shape}; expected a feature map "
            "(1, C, H, W) larger than 1x1: raise --recipe.image-size or take another --backbone"
        )
    return classifier
