"""Which kernels run: one launch, or a library product and pooling; and those of the gradient."""

from __future__ import annotations

from torch import Tensor

from lca_fused.backends.projection import project_rows
from lca_fused.backends.triton_gpu import fused
from lca_fused.backends.triton_gpu.dispatch import (
    bands_in_halves,
    in_registers,
    one_launch,
    recomputes_gates,
)
from lca_fused.backends.triton_gpu.gradient import gate_times_gradient
from lca_fused.backends.triton_gpu.large_map import pool_large_map
from lca_fused.backends.triton_gpu.launch import gpu_of, on_device_of
from lca_fused.backends.triton_gpu.small_map import pool_small_map, small_map_gradient
from lca_fused.rectangles import KernelSizes


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
    return pool(project_rows(rows, weight, bias), kernel_sizes, training)


def pool(
    projection: Tensor, kernel_sizes: KernelSizes | None, training: bool
) -> tuple[Tensor, Tensor | None]:
    """Pool every rectangle of a projection.

    Args:
        projection: (N, H, W, D), contiguous, floating point.
        kernel_sizes: (kh, kw) pairs that fit the map; None means all but 1x1.
        training: whether `projection_gradient` is to follow.

    Returns:
        (N, D) and, for training, what `projection_gradient` takes, (N, H, W, D): the projection
        itself where `dispatch.recomputes_gates`, else the gate map times H * W. In the dtype of
        the projection.
    """
    n, height, width, d = projection.shape
    pooled = projection.new_empty(n, d)
    gpu = gpu_of(projection)
    keeps_map = training and not recomputes_gates(height, width, projection.dtype, gpu)
    saved = projection.new_empty(projection.shape) if keeps_map else projection
    if projection.numel() > 0:
        with on_device_of(projection):
            if not keeps_map and in_registers(height, width, projection.dtype, gpu):
                pool_small_map(projection, pooled, kernel_sizes)
            else:
                halves = bands_in_halves(height, width, d, projection.dtype, gpu)
                gate_map = saved if keeps_map else None
                pool_large_map(projection, pooled, gate_map, kernel_sizes, halves=halves)
    return pooled, saved if training else None


def projection_gradient(
    saved: Tensor, grad_pooled: Tensor, kernel_sizes: KernelSizes | None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the projection, and its sum over the positions of each image.

    Args:
        saved: (N, H, W, D), contiguous: what `pool` returned for it.
        grad_pooled: (N, D), any strides.
        kernel_sizes: those of the forward pass.

    Returns:
        (N, H, W, D) in the dtype of `saved`, and (N, D) in that of accumulation.
    """
    _, height, width, _ = saved.shape
    with on_device_of(saved):
        if recomputes_gates(height, width, saved.dtype, gpu_of(saved)):
            return small_map_gradient(saved, grad_pooled, kernel_sizes)
        return gate_times_gradient(saved, grad_pooled)
