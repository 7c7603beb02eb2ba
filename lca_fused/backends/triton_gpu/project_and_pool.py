"""LCA forward on the GPU: one launch, or a library matmul and pooling."""

from __future__ import annotations

import torch
from torch import Tensor

from lca_fused.backends.projection import project
from lca_fused.backends.triton_gpu import fused, pooling
from lca_fused.backends.triton_gpu.dispatch import one_launch
from lca_fused.backends.triton_gpu.gradient import projection_gradient
from lca_fused.backends.triton_gpu.launch import gpu_of
from lca_fused.rectangles import KernelSizes

__all__ = ["project_and_pool", "projection_gradient"]


def project_and_pool(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_sizes: KernelSizes | None, gate: bool
) -> tuple[Tensor, Tensor | None]:
    """Return (N, D) and, if wanted, the gate map times H * W, (N, H * W, D)."""
    n, _, height, width = x.shape
    if one_launch(n, height, width, x.dtype, gate, gpu_of(x)):
        return fused.accumulate(x, weight, bias, kernel_sizes, gate)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        projection = project(x, weight, bias)
    return pooling.pool(projection, kernel_sizes, gate)
