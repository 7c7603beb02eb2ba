"""What stands between a backbone's feature map and the classifier: one line a head."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lca_fused import LCA


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


HEADS: dict[str, Callable[[int], nn.Module]] = {
    "gap": global_average_pooling,
    "gap-fc": global_average_pooling_fc,
    "lca": LCA,
}
"""Heads by name; each takes C and returns a module (N, C, H, W) -> (N, C)."""
