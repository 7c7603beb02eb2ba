"""Rectangle pooling of maps whose columns fit in registers, and its gradient.

Backward finds the gates again in the projection, which costs less than to write a gate map and
read it in a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lca_fused.backends.triton_gpu import autotune, packed_halves
from lca_fused.backends.triton_gpu.dispatch import (
    Columns,
    columns_candidates,
    columns_of,
    tile_key,
)
from lca_fused.backends.triton_gpu.launch import (
    Plan,
    accumulation,
    aligned,
    gpu_of,
    options,
)
from lca_fused.backends.triton_gpu.small_map_halves import gradient_pairs_kernel, pool_pairs_kernel
from lca_fused.backends.triton_gpu.small_map_kernels import gradient_kernel, pool_kernel
from lca_fused.backends.triton_gpu.tables import bit_mask, orientation
from lca_fused.rectangles import KernelSizes


def pool_small_map(
    projection: Tensor,
    pooled: Tensor,
    kernel_sizes: KernelSizes | None,
    columns: Columns | None = None,
) -> None:
    """Write (N, D) for a contiguous projection (N, H, W, D).

    `columns` are `dispatch`'s unless they are given.
    """

    def plan(columns: Columns) -> Plan:
        kernel = pool_pairs_kernel if columns.arithmetic == "halves" else pool_kernel
        return _plan(kernel, projection, kernel_sizes, columns)

    key = ("pool", *_key(projection, kernel_sizes))
    choose = partial(_columns, "pool", projection)
    autotune.launch(key, (projection, pooled), plan, choose, columns)


def small_map_gradient(
    projection: Tensor,
    grad_pooled: Tensor,
    kernel_sizes: KernelSizes | None,
    columns: Columns | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the projection, and its sum over the positions of each image.

    Args:
        projection: (N, H, W, D), contiguous.
        grad_pooled: (N, D), any strides.
        kernel_sizes: (kh, kw) pairs that fit the map; None means all but 1x1.
        columns: how columns are held; None for what `dispatch` chooses.

    Returns:
        (N, H, W, D) in the dtype of the projection, and (N, D) in that of accumulation.
    """
    n, _, _, d = projection.shape
    gradient = torch.empty_like(projection)
    sums = projection.new_empty(n, d, dtype=torch.promote_types(projection.dtype, torch.float32))
    if projection.numel() == 0:
        return gradient, sums
    stride_n, stride_d = grad_pooled.stride()

    def plan(columns: Columns) -> Plan:
        kernel = gradient_pairs_kernel if columns.arithmetic == "halves" else gradient_kernel
        strides = {"stride_n": stride_n, "stride_d": stride_d}
        return _plan(kernel, projection, kernel_sizes, columns, strides)

    of_grad = grad_pooled.dtype, stride_n, stride_d, aligned(grad_pooled)
    key = ("gradient", *_key(projection, kernel_sizes), *of_grad)
    choose = partial(_columns, "gradient", projection)
    autotune.launch(key, (projection, grad_pooled, gradient, sums), plan, choose, columns)
    return gradient, sums


def _key(projection: Tensor, kernel_sizes: KernelSizes | None) -> tuple[object, ...]:
    return (
        projection.shape,
        projection.dtype,
        projection.device,
        aligned(projection),
        kernel_sizes,
        packed_halves.allowed(),
    )


def _columns(name: str, projection: Tensor, run: Callable[[Columns], None]) -> Columns:
    """What dispatch chooses for a projection, or autotuning where it is on."""
    n, height, width, d = projection.shape
    default = columns_of(n, d, projection.dtype, gpu_of(projection))
    key = (name, *tile_key(n, 1, d, height, width, projection.dtype))
    return autotune.best(key, default, columns_candidates, run, projection.device)


def _plan(
    kernel: Any,
    projection: Tensor,
    kernel_sizes: KernelSizes | None,
    columns: Columns,
    numbers: dict[str, int] | None = None,
) -> Plan:
    n, height, width, d = projection.shape
    transposed, height, width, kernel_sizes = orientation(height, width, kernel_sizes)
    sizes, rectangles = bit_mask(height, width, kernel_sizes)
    gpu = gpu_of(projection)
    constants: dict[str, Any] = {
        "D": d,
        "H": height,
        "W": width,
        "STRIDE_H": 1 if transposed else width,
        "STRIDE_W": height if transposed else 1,
        "SIZES": sizes,
        "RECTANGLES": rectangles,
        "BLOCK": columns.threads,
    }
    if columns.arithmetic == "halves":
        features = d // 2
        constants["XORSIGN"] = gpu.capability is not None and gpu.capability >= 86
    else:
        features = d
        constants |= {"ARITHMETIC": columns.arithmetic, "DTYPE": accumulation(projection.dtype)}
    blocks = n * -(-features // columns.threads)
    return Plan(
        kernel, (blocks,), (numbers or {}) | constants, options(projection, columns.threads)
    )
