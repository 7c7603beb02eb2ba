"""The mean of all rectangles' ReLU, for large maps, without the gate map.

Both kernels write a part of each mean: the programs of one column take different top rows, and wide
maps take a launch for rectangles within a chunk of columns and one for those across two chunks.
`add_parts_kernel` sums up the parts, always in the same order.
"""

import triton
import triton.language as tl

from lca_fused.backends.triton_gpu.arithmetic import (
    add_amounts,
    fma_values,
    lanes_of,
    relu_of_difference,
    relu_of_sum,
)
from lca_fused.backends.triton_gpu.bands import (
    add_lanes,
    add_times,
    column_scales,
    edge_values,
    no_values,
    rows_of_two_chunks,
    store_lanes,
    with_middle_edge,
    zero_lanes,
)
from lca_fused.backends.triton_gpu.columns import add


@triton.jit(do_not_specialize=["columns", "splits", "start"])  # or they compile it again
def sum_within_kernel(
    values_ptr,  # (N, H, W, D)
    part_ptr,  # (splits, N * D)
    width_weight_ptr,  # (H, W): 1 / kw of kernel size (kh, kw), 0 where it is not wanted
    height_weight_ptr,  # (H,): 1 / kh
    columns,  # N * D, in elements
    splits,  # programs of a column
    H,
    start,  # column of the chunk
    rectangles,
    D: tl.constexpr,
    stride_h: tl.constexpr,
    stride_w: tl.constexpr,
    W: tl.constexpr,
    SIZE: tl.constexpr,  # of the chunk
    BOUND: tl.constexpr,
    ARITHMETIC: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rectangles within a chunk of columns; one thread per element, BLOCK per program."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    values = values_ptr + (column // D) * H * (W * D) + column % D
    zero = zero_lanes(BLOCK, DTYPE, ARITHMETIC)
    factors, inverses = column_scales(
        values, inside, zero, H, stride_h, stride_w, W, SIZE, BOUND, ARITHMETIC
    )
    totals = zero
    for turn in range(tl.cdiv(H, 2 * splits)):
        top = _top_of_turn(turn, tl.program_id(1), splits)
        upper = no_values(zero, SIZE, ARITHMETIC)
        lower = no_values(zero, SIZE, ARITHMETIC)
        for bottom in range(top, H):
            row = edge_values(
                values + bottom * stride_h + start * stride_w, zero, factors, inside, stride_w,
                SIZE, BOUND, ARITHMETIC,
            )  # fmt: skip
            kh = bottom - top
            upper = add(upper, row, ARITHMETIC)
            lower = add_times(lower, row, tl.where(bottom > top, 1.0, 0.0), ARITHMETIC)
            amount = _amount_within(zero[0], upper, width_weight_ptr + kh * W, ARITHMETIC)
            totals = add_lanes(totals, amount, tl.load(height_weight_ptr + kh))
            if bottom > top:
                weights = width_weight_ptr + (kh - 1) * W
                amount = _amount_within(zero[0], lower, weights, ARITHMETIC)
                totals = add_lanes(totals, amount, tl.load(height_weight_ptr + kh - 1))
    part_ptr += tl.program_id(1).to(tl.int64) * columns * len(zero)
    mean = 1.0 / (zero[0] + rectangles)  # in DTYPE, as a float argument is a float32
    store_lanes(part_ptr, column, totals, inverses, mean, inside)


@triton.jit(do_not_specialize=["columns", "splits", "start", "last"])
def sum_across_kernel(
    values_ptr,  # (N, H, W, D)
    part_ptr,  # (splits, N * D)
    width_weight_ptr,  # as above
    height_weight_ptr,
    columns,
    splits,
    H,
    start,  # column of the first chunk
    last,  # column of the last chunk
    rectangles,
    D: tl.constexpr,
    stride_h: tl.constexpr,
    stride_w: tl.constexpr,
    W: tl.constexpr,
    FIRST: tl.constexpr,  # columns of the chunk in which rectangles start
    LAST: tl.constexpr,  # columns of the chunk in which they end
    BOUND: tl.constexpr,
    ARITHMETIC: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rectangles from one chunk of columns into a later one."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    values = values_ptr + (column // D) * H * (W * D) + column % D
    zero = zero_lanes(BLOCK, DTYPE, ARITHMETIC)
    factors, inverses = column_scales(
        values, inside, zero, H, stride_h, stride_w, W, FIRST, BOUND, ARITHMETIC
    )
    distance = last - start
    totals = zero
    for turn in range(tl.cdiv(H, 2 * splits)):
        top = _top_of_turn(turn, tl.program_id(1), splits)
        upper_left = no_values(zero, FIRST, ARITHMETIC)
        upper_right = no_values(zero, LAST, ARITHMETIC)
        lower_left = no_values(zero, FIRST, ARITHMETIC)
        lower_right = no_values(zero, LAST, ARITHMETIC)
        for bottom in range(top, H):
            row_left, row_right = rows_of_two_chunks(
                values + bottom * stride_h + start * stride_w, distance, zero, factors,
                inside, stride_w, FIRST, LAST, BOUND, ARITHMETIC,
            )  # fmt: skip
            kh = bottom - top
            weights = width_weight_ptr + kh * W + distance
            upper_left = add(upper_left, row_left, ARITHMETIC)
            upper_right = add(upper_right, row_right, ARITHMETIC)
            in_lower = tl.where(bottom > top, 1.0, 0.0)
            lower_left = add_times(lower_left, row_left, in_lower, ARITHMETIC)
            lower_right = add_times(lower_right, row_right, in_lower, ARITHMETIC)
            amount = _amount_across(zero[0], upper_left, upper_right, weights, ARITHMETIC)
            totals = add_lanes(totals, amount, tl.load(height_weight_ptr + kh))
            if bottom > top:
                weights -= W
                amount = _amount_across(zero[0], lower_left, lower_right, weights, ARITHMETIC)
                totals = add_lanes(totals, amount, tl.load(height_weight_ptr + kh - 1))
    part_ptr += tl.program_id(1).to(tl.int64) * columns * len(zero)
    mean = 1.0 / (zero[0] + rectangles)
    store_lanes(part_ptr, column, totals, inverses, mean, inside)


@triton.jit(do_not_specialize=["columns", "parts"])
def add_parts_kernel(
    part_ptr, pooled_ptr, columns, parts, AT_ONCE: tl.constexpr, BLOCK: tl.constexpr
):
    """Sum up (parts, columns) over the parts; those of gate maps may come to less than zero."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    total = tl.load(part_ptr + column, mask=inside, other=0.0)
    for first in range(1, parts, AT_ONCE):
        for j in tl.static_range(AT_ONCE):
            place = part_ptr + tl.cast(first + j, tl.int64) * columns + column
            total += tl.load(place, mask=inside & (first + j < parts), other=0.0)
    tl.store(pooled_ptr + column, tl.where(total < 0, 0.0, total), mask=inside)


@triton.jit
def _top_of_turn(turn, split, splits):
    """The upper one of the two top rows that a program takes in a turn.

    Every other turn goes backward through the programs, as bands get fewer with every row.
    """
    place = tl.where(turn % 2 == 0, split, splits - 1 - split)
    return 2 * (turn * splits + place)


@triton.jit
def _amount_within(like, band, weights, ARITHMETIC: tl.constexpr):
    """Sum of weight * relu(rectangle) of a band, lane by lane; a width shares its weight."""
    SIZE: tl.constexpr = len(band)
    edges = with_middle_edge(band)
    amount = no_values((like,), 1, ARITHMETIC)[0]
    for width in tl.static_range(1, SIZE + 1):
        same_width = relu_of_difference(edges[width], edges[0], ARITHMETIC)
        for end in tl.static_range(width + 1, SIZE + 1):
            rectangle = relu_of_difference(edges[end], edges[end - width], ARITHMETIC)
            same_width = add_amounts(same_width, rectangle, ARITHMETIC)
        amount = _add_weighted(amount, same_width, weights + width - 1, ARITHMETIC)
    return lanes_of(amount, ARITHMETIC)


@triton.jit
def _amount_across(like, left, right, weights, ARITHMETIC: tl.constexpr):
    """The same of the rectangles that are a suffix sum plus a prefix sum."""
    FIRST: tl.constexpr = len(left)
    LAST: tl.constexpr = len(right)
    amount = no_values((like,), 1, ARITHMETIC)[0]
    for lead in tl.static_range(1 - FIRST, LAST):
        same_width = relu_of_sum(right[max(0, lead)], left[max(0, -lead)], ARITHMETIC)
        for start in tl.static_range(max(0, -lead) + 1, min(FIRST, LAST - lead)):
            rectangle = relu_of_sum(right[start + lead], left[start], ARITHMETIC)
            same_width = add_amounts(same_width, rectangle, ARITHMETIC)
        amount = _add_weighted(amount, same_width, weights + lead, ARITHMETIC)
    return lanes_of(amount, ARITHMETIC)


@triton.jit
def _add_weighted(amount, same_width, weight_ptr, ARITHMETIC: tl.constexpr):
    weight = tl.load(weight_ptr) + tl.zeros_like(amount)
    return fma_values(same_width.to(amount.dtype), weight, amount, ARITHMETIC)
