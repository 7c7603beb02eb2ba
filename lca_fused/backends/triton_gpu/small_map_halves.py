"""Kernels for maps whose columns fit in registers: one thread two columns, in packed halves.

As small_map_kernels.py, for bfloat16 and an even number of features. A 32-bit load brings two
neighbouring features, and all that follows is done for both at once.
"""

import triton
import triton.language as tl

from lca_fused.backends.triton_gpu.arithmetic import lower_half, pack_bfloat16, upper_half
from lca_fused.backends.triton_gpu.column_access import (
    column_pointers,
    image_and_feature,
    load_column,
    store_column,
)
from lca_fused.backends.triton_gpu.columns import (
    gates_of_rows,
    packed_prefix_sums,
    sum_of_rectangles,
)


@triton.jit
def pool_pairs_kernel(
    projection_ptr,  # (N, H * W, D), contiguous, bfloat16
    pooled_ptr,  # (N, D), contiguous, bfloat16
    D: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    STRIDE_H: tl.constexpr,  # in positions
    STRIDE_W: tl.constexpr,
    SIZES: tl.constexpr,
    RECTANGLES: tl.constexpr,
    XORSIGN: tl.constexpr,  # see larger_magnitude_of_bfloat16
    BLOCK: tl.constexpr,
):
    """The mean over all rectangles of relu(mean over the rectangle)."""
    PAIRS: tl.constexpr = D // 2
    image, pair = image_and_feature(PAIRS, BLOCK)
    inside = pair < PAIRS
    ptr = projection_ptr.to(tl.pointer_type(tl.int32), bitcast=True)
    ptr += image * (H * W * PAIRS) + pair
    pairs = load_column(column_pointers(ptr, PAIRS, H, W, STRIDE_H, STRIDE_W), inside)
    rows, lower_unit, upper_unit = packed_prefix_sums(pairs, H, W, XORSIGN)
    totals = sum_of_rectangles(rows, H, W, SIZES, "halves")
    lower = totals[0] * (1.0 / RECTANGLES) * lower_unit
    upper = totals[1] * (1.0 / RECTANGLES) * upper_unit
    ptr = pooled_ptr.to(tl.pointer_type(tl.int32), bitcast=True) + image * PAIRS + pair
    tl.store(ptr, pack_bfloat16(lower, upper), mask=inside)


@triton.jit
def gradient_pairs_kernel(
    projection_ptr,  # (N, H * W, D), contiguous, bfloat16
    grad_pooled_ptr,  # (N, D), any strides
    gradient_ptr,  # (N, H * W, D), contiguous, bfloat16
    sums_ptr,  # (N, D), contiguous, float32
    stride_n,
    stride_d,
    D: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    STRIDE_H: tl.constexpr,  # in positions
    STRIDE_W: tl.constexpr,
    SIZES: tl.constexpr,
    RECTANGLES: tl.constexpr,
    XORSIGN: tl.constexpr,  # see larger_magnitude_of_bfloat16
    BLOCK: tl.constexpr,
):
    """The gate map, found again, times dL/dy, and its sum over the positions of each image."""
    PAIRS: tl.constexpr = D // 2
    image, pair = image_and_feature(PAIRS, BLOCK)
    inside = pair < PAIRS
    offset = image * (H * W * PAIRS) + pair
    ptr = projection_ptr.to(tl.pointer_type(tl.int32), bitcast=True) + offset
    pairs = load_column(column_pointers(ptr, PAIRS, H, W, STRIDE_H, STRIDE_W), inside)
    rows, lower_unit, upper_unit = packed_prefix_sums(pairs, H, W, XORSIGN)
    grad_ptr = grad_pooled_ptr + image * stride_n + (2 * pair).to(tl.int64) * stride_d
    lower_factor = _factor(grad_ptr, lower_unit, inside, RECTANGLES)
    upper_factor = _factor(grad_ptr + stride_d, upper_unit, inside, RECTANGLES)
    gates = gates_of_rows(rows, H, W, SIZES, "halves")
    lower_open = tl.zeros_like(lower_factor)
    upper_open = tl.zeros_like(upper_factor)
    gradient = ()
    for k in tl.static_range(H * W):
        lower = lower_half(gates[k])
        upper = upper_half(gates[k])
        lower_open += lower
        upper_open += upper
        gradient = gradient + (pack_bfloat16(lower * lower_factor, upper * upper_factor),)
    ptr = gradient_ptr.to(tl.pointer_type(tl.int32), bitcast=True) + offset
    store_column(column_pointers(ptr, PAIRS, H, W, STRIDE_H, STRIDE_W), gradient, inside)
    sums_ptr += image * D + 2 * pair
    tl.store(sums_ptr, lower_open * lower_factor, mask=inside)
    tl.store(sums_ptr + 1, upper_open * upper_factor, mask=inside)


@triton.jit
def _factor(grad_ptr, unit, inside, RECTANGLES: tl.constexpr):
    """dL/dy over the number of rectangles, or NaN where the unit is."""
    grad = tl.load(grad_ptr, mask=inside, other=0.0).to(tl.float32)
    return grad * (1.0 / RECTANGLES) + (unit - unit)
