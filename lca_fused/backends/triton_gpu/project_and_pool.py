"""LCA forward on the GPU: one launch, or a library matmul and pooling."""

from __future__ import annotations

from torch import Tensor

from lca_fused.backends.projection import project_rows
from lca_fused.backends.triton_gpu import fused, pooling
from lca_fused.backends.triton_gpu.dispatch import one_launch
from lca_fused.backends.triton_gpu.launch import gpu_of
from lca_fused.backends.triton_gpu.pooling import projection_gradient
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
    """(N, H, W, C) -> (N, D) and, for training, what `projection_gradient` takes, (N, H, W, D)."""
    n, height, width, _ = rows.shape
    if one_launch(n, height, width, rows.dtype, training, gpu_of(rows)):
        return fused.accumulate(rows, weight, bias, kernel_sizes, training)
    return pooling.pool(project_rows(rows, weight, bias), kernel_sizes, training)
