"""ArcFace: products learnt as directions that lie an angle apart, arXiv 1801.07698.

The directions start from the mean embedding of each product's photos, as in arXiv 1712.07136. From
noise they learn to tell the products apart as well, but end far from the photos, and a product that
is enrolled from its photos is then taken for all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.networks.model import ModelError
from experiments.outputs import missing_packages
from lca_fused.gallery import SCALE, Gallery, GalleryError

MARGIN = 0.2
"""Radians that a photo must be nearer to its product than without. For faces the paper has 0.5, and
a scale of 64; of few photos per product less is learnt, and the scale is the gallery's. Chosen on
validation photos of generated products."""

_INSIDE = 1 - 1e-6  # of the cosines: at 1 the arc cosine's slope is infinite


class ArcFaceLoss(nn.Module):
    """Cross-entropy in which photos look further from their own products than they are.

    Equation 3 of the paper: of the logits s cos(θ), with θ the angle between a photo and a product,
    that of the photo's own product is s cos(θ + margin). Where θ + margin is above π, and the
    cosine would rise again, pytorch-metric-learning has s (cos(θ) - margin sin(margin)).

    Args:
        margin: in radians.
        scale: s; the logits divided by it are cosines.

    Shape:
        (N, K) logits and (N,) int64 class indices to their mean loss, a scalar.

    Raises:
        ModelError: pytorch-metric-learning cannot be imported.
    """

    def __init__(self, margin: float = MARGIN, scale: float = SCALE) -> None:
        super().__init__()
        if missing_packages(["pytorch_metric_learning"]):
            raise ModelError(
                "ArcFace's loss is that of pytorch-metric-learning, which cannot be imported; "
                'pip install "lca-fused[metric]" brings it'
            )
        from pytorch_metric_learning import losses

        self.scale = scale
        # It has directions of its own and takes embeddings; here the directions are the model's,
        # to be stored, averaged and shared as all its weights. Its margin works on any cosines.
        self._library = losses.ArcFaceLoss(1, 1, math.degrees(margin)).requires_grad_(False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss."""
        own = labels[:, None]
        cosines = logits.gather(1, own) * (_INSIDE / self.scale)
        further: Tensor = self._library.modify_cosine_of_target_classes(cosines)
        return F.cross_entropy(logits.scatter(1, own, self.scale * further), labels)


class Directions(nn.Module):
    """A cosine classifier that learns: what a gallery of a vector per product computes.

    Args:
        in_features: D.
        out_features: K.
        scale: of the cosines.

    Shape:
        (N, D) -> (N, K) logits, scale * cosine, in float32 whatever autocast says.
    """

    def __init__(self, in_features: int, out_features: int, scale: float = SCALE) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, K) of what a head returns, (N, D)."""
        with torch.autocast(x.device.type, enabled=False):
            features = F.normalize(x.to(self.weight.dtype), dim=1)
            return self.scale * F.linear(features, F.normalize(self.weight, dim=1))

    def start_from(self, gallery: Gallery) -> None:
        """Begin with the vectors of a gallery that has one of each product."""
        with torch.no_grad():
            self.weight.copy_(gallery.embeddings)

    def enrolled(self, names: Sequence[str]) -> Gallery:
        """Return a gallery that computes the same, of the products' names.

        Raises:
            ModelError: a direction is zero or not finite.
        """
        try:
            return Gallery(self.weight, torch.arange(len(names)), names, scale=self.scale)
        except GalleryError as error:
            raise ModelError(f"what was learnt makes no gallery: {error}") from error
