"""LCA forward on the GPU: one launch, or a library matmul and pooling."""

from __future__ import annotations

import torch
from torch import Tensor

from lca_fused.backends.projection import project_rows
from lca_fused.backends.triton_gpu import fused, gradient, pooling
from lca_fused.backends.triton_gpu.dispatch import one_launch
from lca_fused.backends.triton_gpu.launch import gpu_of
from lca_fused.backends.triton_gpu.rows import to_rows
from lca_fused.rectangles import KernelSizes

__all__ = ["project_and_pool", "projection_gradient", "to_rows"]


def project_and_pool(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: KernelSizes | None,
    training: bool,
) -> tuple[Tensor, Tensor | None]:
    """(N, H, W, C) -> (N, D) and, for training, the gate map times H * W, (N, H, W, D)."""
    n, height, width, _ = rows.shape
    if one_launch(n, height, width, rows.dtype, training, gpu_of(rows)):
        return fused.accumulate(rows, weight, bias, kernel_sizes, training)
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        projection = project_rows(rows, weight, bias)
    return pooling.pool(projection, kernel_sizes, training)


def projection_gradient(
    gate_map: Tensor,
    grad_pooled: Tensor,
    kernel_sizes: KernelSizes | None,  # noqa: ARG001, the gate map holds what they say
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the projection, (N, H, W, D), and its sum over positions, (N, D)."""
    return gradient.gate_times_gradient(gate_map, grad_pooled)
