"""What stands between a backbone's feature map and the classifier: one line a head."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lca_fused import LCA
from reference.lca import lca_reference
from reference.pooling import RMAC, GeM


def global_average_pooling(_channels: int) -> nn.Module:
    """Mean over all positions: what the backbones come with. (N, C, H, W) -> (N, C)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def global_average_pooling_fc(channels: int) -> nn.Module:
    """Global average pooling and LCA's own FC + ReLU: its parameters, none of its rectangles.

    (N, C, H, W) -> (N, C). What this gains over "gap" LCA's extra layer explains; only what LCA
    gains over this is owed to the rectangles.
    """
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, channels), nn.ReLU()
    )


def generalized_mean(_channels: int) -> nn.Module:
    """GeM, its exponent learnt with the rest. (N, C, H, W) -> (N, C)."""
    return GeM()


def regional_maxima(channels: int) -> nn.Module:
    """R-MAC. (N, C, H, W) -> (N, C).

    Its unit vectors are stretched to a root mean square of 1, near that of the other heads:
    a linear classifier would learn far more slowly from the former at the same rate.
    """
    return RMAC(scale=channels**0.5)


class LCAReference(nn.Linear):
    """LCA as the paper states it, (N, C, H, W) -> (N, C): what a training step costs with it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool every rectangle and project it."""
        return lca_reference(x, self.weight, self.bias)


HEADS: dict[str, Callable[[int], nn.Module]] = {
    "gap": global_average_pooling,
    "gap-fc": global_average_pooling_fc,
    "gem": generalized_mean,
    "rmac": regional_maxima,
    "lca": LCA,
    "lca-reference": LCAReference,
}
"""Heads by name; each takes C and returns a module (N, C, H, W) -> (N, C)."""
