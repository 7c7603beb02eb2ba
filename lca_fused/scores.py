"""What stands behind LCA as scores: each class's logit as a product of its pooled features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lca_fused.gallery import Gallery
from lca_fused.layer import LCA

Scorer: TypeAlias = "nn.Linear | Gallery"
"""What makes logits of what LCA returns, and can be explained."""


class Scores(Protocol):
    """The logits of pooled features (N, D)."""

    @property
    def logits(self) -> Tensor:
        """The logits, (N, K)."""
        ...

    @property
    def terms(self) -> Tensor:
        """Sizes of what each logit is a sum of, (N, K) or what broadcasts to it."""
        ...

    def towards(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return w (N, D) and b (N,): logit = features . w + b, of the class (N,) of each."""
        ...


def scores_of(scorer: Scorer, pooled: Tensor) -> Scores:
    """Return the scores of pooled features (N, D), computed in their dtype."""
    if isinstance(scorer, Gallery):
        return _Cosines(scorer, pooled)
    return _Products(*parameters_of(scorer, pooled.dtype), pooled)


@dataclass(frozen=True)
class _Products:
    weight: Tensor
    bias: Tensor | None
    pooled: Tensor

    @property
    def logits(self) -> Tensor:
        return F.linear(self.pooled, self.weight, self.bias)

    @property
    def terms(self) -> Tensor:
        bias = None if self.bias is None else self.bias.abs()
        return F.linear(self.pooled.abs(), self.weight.abs(), bias)

    def towards(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        none = self.pooled.new_zeros(len(classes))
        return self.weight[classes], none if self.bias is None else self.bias[classes]


@dataclass(frozen=True)
class _Cosines:
    """A cosine is a product with the product's most alike vector, over the features' length."""

    gallery: Gallery
    pooled: Tensor

    @property
    def logits(self) -> Tensor:
        return self.gallery(self.pooled).to(self.pooled.dtype)

    @property
    def terms(self) -> Tensor:
        return self.pooled.new_tensor(self.gallery.scale)

    def towards(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        nearest = self.gallery.embeddings[self.gallery.nearest(self.pooled, classes)]
        # As F.normalize has it: an embedding that is 0 has no direction, and all its cosines are 0.
        lengths = self.pooled.norm(dim=1, keepdim=True).clamp(min=1e-12)
        none = self.pooled.new_zeros(len(classes))
        return self.gallery.scale * nearest.to(self.pooled.dtype) / lengths, none


def parameters_of(layer: LCA | nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a layer in a dtype."""
    bias = layer.bias
    return layer.weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)
