"""Kernels for maps whose columns fit in registers: one thread per column, in float."""

import triton
import triton.language as tl

from lca_fused.backends.triton_gpu.column_access import (
    column_pointers,
    image_and_feature,
    in_dtype,
    load_column,
    store_column,
)
from lca_fused.backends.triton_gpu.columns import (
    gates_of_rows,
    nan_if_not_finite,
    row_prefix_sums,
    scaled_prefix_sums,
    sum_of_rectangles,
)


@triton.jit
def pool_kernel(
    projection_ptr,  # (N, H * W, D), contiguous
    pooled_ptr,  # (N, D), contiguous
    D: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    STRIDE_H: tl.constexpr,  # in positions
    STRIDE_W: tl.constexpr,
    SIZES: tl.constexpr,
    RECTANGLES: tl.constexpr,
    ARITHMETIC: tl.constexpr,
    DTYPE: tl.constexpr,  # of accumulation
    BLOCK: tl.constexpr,
):
    """The mean over all rectangles of relu(mean over the rectangle)."""
    image, feature = image_and_feature(D, BLOCK)
    inside = feature < D
    ptr = projection_ptr + image * (H * W * D) + feature
    pointers = column_pointers(ptr, D, H, W, STRIDE_H, STRIDE_W)
    column = in_dtype(load_column(pointers, inside), DTYPE)
    rows, unit = scaled_prefix_sums(column, H, W, ARITHMETIC)
    totals = sum_of_rectangles(rows, H, W, SIZES, ARITHMETIC)
    tl.store(pooled_ptr + image * D + feature, totals[0] * (1.0 / RECTANGLES) * unit, mask=inside)


@triton.jit
def gradient_kernel(
    projection_ptr,  # (N, H * W, D), contiguous
    grad_pooled_ptr,  # (N, D), any strides
    gradient_ptr,  # (N, H * W, D), contiguous
    sums_ptr,  # (N, D), contiguous, in DTYPE
    stride_n,
    stride_d,
    D: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    STRIDE_H: tl.constexpr,  # in positions
    STRIDE_W: tl.constexpr,
    SIZES: tl.constexpr,
    RECTANGLES: tl.constexpr,
    DTYPE: tl.constexpr,  # of accumulation
    BLOCK: tl.constexpr,
):
    """The gate map, found again, times dL/dy, and its sum over the positions of each image."""
    image, feature = image_and_feature(D, BLOCK)
    inside = feature < D
    offset = image * (H * W * D) + feature
    pointers = column_pointers(projection_ptr + offset, D, H, W, STRIDE_H, STRIDE_W)
    rows = row_prefix_sums(in_dtype(load_column(pointers, inside), DTYPE), H, W)
    grad_ptr = grad_pooled_ptr + image * stride_n + feature.to(tl.int64) * stride_d
    grad = tl.load(grad_ptr, mask=inside, other=0.0).to(DTYPE)
    factor = grad * (1.0 / RECTANGLES) + nan_if_not_finite(rows, H, W)
    gates = gates_of_rows(rows, H, W, SIZES, "maximum")
    open_gates = tl.zeros_like(factor)
    gradient = ()
    for k in tl.static_range(H * W):
        open_gates += gates[k]
        gradient = gradient + ((gates[k] * factor).to(gradient_ptr.dtype.element_ty),)
    pointers = column_pointers(gradient_ptr + offset, D, H, W, STRIDE_H, STRIDE_W)
    store_column(pointers, gradient, inside)
    tl.store(sums_ptr + image * D + feature, open_gates * factor, mask=inside)
