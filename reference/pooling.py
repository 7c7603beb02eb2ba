"""Published poolings that LCA is compared with, in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GeM(nn.Module):
    """Generalised mean over all positions, its exponent learnt: arXiv 1711.02512, equation 5.

    Args:
        p: the exponent at the start; 1 is the average, infinity the maximum.
        floor: smaller values count as this much, as negative ones have no power.

    Shape:
        (N, C, H, W) -> (N, C), float32 for 16-bit maps: powers would lose too many digits.
    """

    def __init__(self, p: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
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
        scale: length of the vectors returned.

    Shape:
        (N, C, H, W) -> (N, C).
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

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
