"""Backward of the operator around kernels: from dL/dy to the gradients of rows, weight and bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ProjectionGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def input_gradients(
    projection_gradient: ProjectionGradient,
    grad_pooled: Tensor,
    rows: Tensor,
    weight: Tensor,
    saved: Tensor,
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of rows, weight and bias, of those that are needed.

    Args:
        projection_gradient: `Kernels.projection_gradient` with the kernel sizes bound.
        grad_pooled: (N, D), any strides.
        rows: (N, H, W, C), contiguous, as in the forward pass.
        weight: (D, C).
        saved: (N, H, W, D), what the forward pass saved for `projection_gradient`.
        needed: whether rows, weight and bias need their gradients.
    """
    projected, sums = _projected(projection_gradient, saved, grad_pooled)
    # No flatten: it has no rule for many gradients at once.
    product = projected.reshape(-1, saved.shape[3])
    grad_rows = grad_weight = grad_bias = None
    if needed[0]:
        grad_rows = (product @ weight).view(rows.shape)
    if needed[1]:
        grad_weight = product.t() @ rows.flatten(0, 2)
    if needed[2]:
        grad_bias = sums.sum(0).to(projected.dtype)
    return grad_rows, grad_weight, grad_bias


def _projected(
    projection_gradient: ProjectionGradient, saved: Tensor, grad_pooled: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient of the projection and its sums over positions; itself differentiable if wanted."""
    if not torch.is_grad_enabled():
        return projection_gradient(saved, grad_pooled)
    # The gate map is piecewise constant in the projection, so the derivative of this product is
    # exact. It is asked for times a power of two near H * W, or 16 bits would underflow.
    n, height, width, d = saved.shape
    scale = 2 ** min(14, (height * width).bit_length())
    with torch.no_grad():
        gate_map = projection_gradient(saved, saved.new_full((n, d), scale))[0] / scale
    projected = grad_pooled[:, None, None] * gate_map
    return projected, projected.sum((1, 2), dtype=torch.promote_types(saved.dtype, torch.float32))
