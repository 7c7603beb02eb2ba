"""A gallery of class means: each product by the mean embedding of its photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from experiments.networks.model import ModelError
from experiments.training.device import Compute
from experiments.training.feature_maps import MapDataset, pooled
from experiments.training.head_first import whitened
from lca_fused import LCA
from lca_fused.classifier import Classifier
from lca_fused.gallery import Enrolled, Gallery, GalleryError

# More directions tell photos of the kind that was whitened apart better, and others worse: 31
# products by the mean of 28 photos, or of one packshot, judged on validation photos.
_WHITENED = 256


def enroll_class_means(
    model: Classifier, train: MapDataset, classes: Sequence[str], compute: Compute
) -> None:
    """Put a gallery in the place of a model's linear layer; LCA whitens the regions first.

    Args:
        model: on the device of `compute`, whose backbone the maps are of.
        train: maps of training photos, each drawn as often as it repeats.
        classes: names of the K classes; each has a photo.
        compute: the device; embeddings are computed in float32, whatever its precision.

    Raises:
        ModelError: the photos cannot whiten LCA, or a product's mean embedding is zero.
    """
    if isinstance(model.pool, LCA):
        out_features = min(_WHITENED, 2 * (model.pool.in_features // 2))
        model.pool = whitened(train, out_features).to(compute.device)
    model.set_gallery(class_means(model.pool, train, classes, compute))


def class_means(
    pool: nn.Module, train: MapDataset, classes: Sequence[str], compute: Compute
) -> Gallery:
    """Return a gallery of each product's mean embedding, in the order of `classes`, on the CPU.

    Args:
        pool: the head.
        train: maps of training photos, each drawn as often as it repeats.
        classes: names of the K classes; each has a photo.
        compute: the device; embeddings are computed in float32, whatever its precision.

    Raises:
        ModelError: a product's mean embedding is zero.
    """
    features, labels = pooled(pool, train, replace(compute, precision=torch.float32))
    sums = torch.zeros(len(classes), features.shape[1])
    sums.index_add_(0, labels, F.normalize(features, dim=1))
    products = {name: Enrolled(total[None]) for name, total in zip(classes, sums, strict=True)}
    try:
        return Gallery.of(products)
    except GalleryError as error:
        raise ModelError(f"no gallery of the training photos: {error}") from error
