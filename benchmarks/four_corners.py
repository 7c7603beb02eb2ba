"""LCA from a 2D integral image as it is known from box filters: four corners a rectangle.

With I[i, j] the sum of all positions above row i and left of column j, the sum over rows t..b and
columns l..r is I[b+1, r+1] - I[t, r+1] - I[b+1, l] + I[t, l]: three additions a rectangle, where
the library takes one, because I[b+1, j] - I[t, j], a band's prefix sums, serve all rectangles of
the band. The corners are sums of up to H*W terms and cancel, so small rectangles lose digits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lca_fused.backends.projection import project
from lca_fused.rectangles import num_rectangles, resolve_kernel_sizes


class FourCorners(nn.Module):
    """(N, C, H, W) -> (N, D) with torch operators and their own gradients."""

    weight: Tensor  # (D, C)
    bias: Tensor  # (D,)

    def forward(self, x: Tensor) -> Tensor:
        """Project, and pool every rectangle; sums are taken in float32 or float64."""
        return four_corner_pooling(project(x, self.weight, self.bias))


def four_corner_pooling(projection: Tensor) -> Tensor:
    """Mean over all rectangles but 1x1 of relu(mean over the rectangle): (N, H, W, D) -> (N, D)."""
    n, height, width, d = projection.shape
    summed = projection if projection.dtype == torch.float64 else projection.float()
    integral = F.pad(summed.cumsum(dim=1).cumsum(dim=2), (0, 0, 1, 0, 1, 0))
    sizes = resolve_kernel_sizes(height, width)
    total = summed.new_zeros(n, d)
    for kh, kw in sizes:
        below, above = integral[:, kh:], integral[:, :-kh]
        rectangles = below[:, :, kw:] - above[:, :, kw:] - below[:, :, :-kw] + above[:, :, :-kw]
        total = total + rectangles.relu().sum(dim=(1, 2)) / (kh * kw)
    return (total / num_rectangles(height, width, sizes)).to(projection.dtype)
