"""What stands between a feature map and the classifier: LCA, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lca_fused.layer import LCA


class GlobalAveragePooling(nn.Module):
    """Mean over all positions: what most backbones come with. (N, C, H, W) -> (N, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_features = channels

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


class GlobalAveragePoolingFC(GlobalAveragePooling):
    """Global average pooling and LCA's own FC + ReLU: its parameters, none of its rectangles.

    (N, C, H, W) -> (N, C). What this gains over average pooling LCA's extra layer explains; only
    what LCA gains over this is owed to the rectangles.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        return self.fc(super().forward(x)).relu()


class GeM(nn.Module):
    """Generalised mean over all positions, its exponent learnt: arXiv 1711.02512, equation 5.

    Args:
        channels: C.
        p: the exponent at the start; 1 is the average, infinity the maximum.
        floor: smaller values count as this much, as negative ones have no power.

    Shape:
        (N, C, H, W) -> (N, C), float32 for 16-bit maps: powers would lose too many digits.
    """

    def __init__(self, channels: int, p: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.out_features = channels
        self.p = nn.Parameter(torch.tensor(p))
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        wide = x if x.dtype == torch.float64 else x.float()
        powers = wide.clamp(min=self.floor).pow(self.p)
        return F.adaptive_avg_pool2d(powers, 1).flatten(1).pow(1 / self.p)


class RMAC(nn.Module):
    """Regional maximum activations: arXiv 1511.05879, section 3.2, without its whitening.

    The maximum over each square region of three scales, neighbours overlapping by 40 %; each is
    normalised, and so is their sum.

    Args:
        channels: C.
        scale: length of the vectors returned. By default their root mean square is 1, near that of
            the other heads: a linear classifier would learn far more slowly from unit vectors at
            the same rate.

    Shape:
        (N, C, H, W) -> (N, C).
    """

    def __init__(self, channels: int, scale: float | None = None) -> None:
        super().__init__()
        self.out_features = channels
        self.scale = channels**0.5 if scale is None else scale

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        shorter = min(x.shape[2:])
        regions = []
        for level in range(1, 4):
            side = max(1, 2 * shorter // (level + 1))
            stride = max(1, round(0.6 * side))
            maxima = F.max_pool2d(x, side, stride).flatten(2)  # (N, C, regions)
            regions.append(F.normalize(maxima, dim=1).sum(2))
        return self.scale * F.normalize(torch.stack(regions).sum(0), dim=1)

    def extra_repr(self) -> str:
        """Return the arguments that make this layer."""
        return f"scale={self.scale:g}"


HEADS: dict[str, Callable[[int], nn.Module]] = {
    "gap": GlobalAveragePooling,
    "gap-fc": GlobalAveragePoolingFC,
    "gem": GeM,
    "rmac": RMAC,
    "lca": LCA,
}
"""Heads by name; each takes C and returns a module (N, C, H, W) -> (N, out_features)."""


def head_name(pool: nn.Module) -> str | None:
    """Return the name in `HEADS` of a module's class, or None if it has none there."""
    return next((name for name, kind in HEADS.items() if type(pool) is kind), None)
