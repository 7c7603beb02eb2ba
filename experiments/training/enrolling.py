"""A gallery of the training photos in the place of training: the mean embedding of each product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from experiments.training.device import Compute
from experiments.training.feature_maps import MapDataset
from experiments.training.head_first import whitened
from lca_fused import LCA
from lca_fused.classifier import Classifier
from lca_fused.gallery import Enrolled, Gallery

_BATCH = 32

# More directions tell photos of the kind that was whitened apart better, and others worse: 31
# products by the mean of 28 photos, or of one packshot, judged on validation photos.
_WHITENED = 256


def enroll(model: Classifier, train: MapDataset, classes: Sequence[str], compute: Compute) -> None:
    """Put a gallery in the place of a model's linear layer; LCA whitens the regions first.

    Args:
        model: on the device of `compute`, whose backbone the maps are of.
        train: maps of training photos, each drawn as often as it repeats.
        classes: names of the K classes; each has a photo.
        compute: device and precision.
    """
    if isinstance(model.pool, LCA):
        out_features = min(_WHITENED, 2 * (model.pool.in_features // 2))
        model.pool = whitened(train, out_features).to(compute.device)
    sums = torch.zeros(len(classes), model.pool.out_features)
    with torch.inference_mode():
        for maps, labels in DataLoader(train, batch_size=_BATCH):
            pooled = model.pool(maps.to(compute.device)).float().cpu()
            sums.index_add_(0, labels, F.normalize(pooled, dim=1))
    products = {name: Enrolled(total[None]) for name, total in zip(classes, sums, strict=True)}
    model.set_gallery(Gallery.of(products))
