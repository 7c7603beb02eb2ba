"""Rectangle pooling of a projection in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from lca_fused.backends.triton_gpu import dispatch
from lca_fused.backends.triton_gpu.dispatch import Tile, in_registers
from lca_fused.backends.triton_gpu.large_map import pool_large_map
from lca_fused.backends.triton_gpu.launch import gpu_of, on_device_of
from lca_fused.backends.triton_gpu.small_map import pool_small_map
from lca_fused.rectangles import KernelSizes


def pool(
    projection: Tensor, kernel_sizes: KernelSizes | None, gate: bool, tile: Tile | None = None
) -> tuple[Tensor, Tensor | None]:
    """Pool every rectangle of a projection.

    Args:
        projection: (N, H, W, D), floating point.
        kernel_sizes: (kh, kw) pairs that fit the map; None means all but 1x1.
        gate: whether the gate map is wanted.
        tile: `dispatch`'s unless one is given, for a map that `dispatch.in_registers` lets pass.

    Returns:
        (N, D) and the gate map times H * W, (N, H, W, D), or None; in the dtype of `projection`.
    """
    projection = projection.contiguous()
    n, height, width, d = projection.shape
    pooled = projection.new_empty(n, d)
    gate_map = torch.empty_like(projection) if gate else None
    if projection.numel() == 0:
        return pooled, gate_map
    with on_device_of(projection):
        if in_registers(height, width, gate, gpu_of(projection)):
            pool_small_map(projection, pooled, gate_map, kernel_sizes, tile)
        else:
            halves = dispatch.halves(height, width, d, projection.dtype, gpu_of(projection))
            pool_large_map(projection, pooled, gate_map, kernel_sizes, halves=halves)
    return pooled, gate_map
