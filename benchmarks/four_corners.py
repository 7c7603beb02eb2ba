"""LCA from a 2D integral image as it is known from box filters: four corners per rectangle.

With I[i, j] the sum of all positions above row i and left of column j, the sum over rows t..b and
columns l..r is I[b+1, r+1] - I[t, r+1] - I[b+1, l] + I[t, l]: three additions per rectangle, where
the library takes one, because I[b+1, j] - I[t, j], a band's prefix sums, serve all rectangles of
the band. The corners are sums of up to H*W terms and cancel, so small rectangles lose digits. The
gradient is the transposed form: each open rectangle leaves a step at its four corners, and the
steps are summed up along both sides of the map at last.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lca_fused.backends.projection import project
from lca_fused.rectangles import num_rectangles, resolve_kernel_sizes


class FourCorners(nn.Module):
    """(N, C, H, W) -> (N, D), in torch operators."""

    weight: Tensor  # (D, C)
    bias: Tensor  # (D,)

    def forward(self, x: Tensor) -> Tensor:
        """Project, and pool every rectangle; sums are taken in float32 or float64."""
        projection = project(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            return _Pooling.apply(projection)
        return _pool(projection, None)


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projection: Tensor) -> Tensor:
        n, height, width, d = projection.shape
        steps = projection.new_zeros(n, height + 1, width + 1, d, dtype=_summed_in(projection))
        pooled = _pool(projection, steps)
        gate = steps.cumsum(dim=1).cumsum(dim=2)[:, :height, :width]
        ctx.save_for_backward(gate.to(projection.dtype))
        return pooled

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (gate,) = ctx.saved_tensors
        return grad_outputs[0][:, None, None, :] * gate


def _pool(projection: Tensor, steps: Tensor | None) -> Tensor:
    """Mean over all rectangles but 1x1 of relu(mean over the rectangle): (N, H, W, D) -> (N, D).

    If given, `steps`, (N, H + 1, W + 1, D), takes what each rectangle adds to the gradient.
    """
    n, height, width, d = projection.shape
    summed = projection.to(_summed_in(projection))
    integral = F.pad(summed.cumsum(dim=1).cumsum(dim=2), (0, 0, 1, 0, 1, 0))
    total = summed.new_zeros(n, d)
    sizes = resolve_kernel_sizes(height, width)
    for kh, kw in sizes:
        weight = 1 / (kh * kw * num_rectangles(height, width, sizes))
        below, above = integral[:, kh:], integral[:, :-kh]
        rectangles = below[:, :, kw:] - above[:, :, kw:] - below[:, :, :-kw] + above[:, :, :-kw]
        total += rectangles.relu().sum(dim=(1, 2)) * weight
        if steps is not None:
            opened = (rectangles > 0).to(steps.dtype) * weight
            steps[:, :-kh, :-kw] += opened
            steps[:, :-kh, kw:] -= opened
            steps[:, kh:, :-kw] -= opened
            steps[:, kh:, kw:] += opened
    return total.to(projection.dtype)


def _summed_in(projection: Tensor) -> torch.dtype:
    return torch.float64 if projection.dtype == torch.float64 else torch.float32
