"""The gate map of maps that are cut into chunks of columns: see gate_bands.py.

Three kernels, as one of all would take long to compile: the steps of rectangles within a chunk,
those of rectangles from one chunk into a later one, and prefix sums of the steps. Each thread reads
back what it wrote, here and in the launch before, so BLOCK must be the number of threads.

Such maps come in small batches, with too few columns to fill a GPU. So the top rows of a column are
shared among programs, each with memory for steps of its own, which the last kernel adds up.
"""

import triton
import triton.language as tl

from lca_fused.backends.triton_gpu.arithmetic import (
    add_values,
    fma_values,
    is_greater,
    lanes_of,
    negative,
    subtract_values,
)
from lca_fused.backends.triton_gpu.bands import (
    add_lanes,
    add_times,
    column_scales,
    edge_values,
    no_values,
    rows_of_two_chunks,
    store_lanes,
    zero_lanes,
)
from lca_fused.backends.triton_gpu.columns import add
from lca_fused.backends.triton_gpu.gate_bands import (
    add_band,
    load_steps,
    store_gates,
    sum_of_products,
)


@triton.jit(do_not_specialize=["columns", "splits", "start"])  # or they compile it again
def gate_within_kernel(
    values_ptr,  # (N, H, W, D)
    part_ptr,  # (splits, N * D): these rectangles' parts of the mean
    steps_ptr,  # splits of as many as values, in the dtype of band values; added to
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
    """Rectangles that start and end in one chunk."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    offset = (column // D) * H * (W * D) + column % D
    zero = zero_lanes(BLOCK, DTYPE, ARITHMETIC)
    factors, inverses = column_scales(
        values_ptr + offset, inside, zero, H, stride_h, stride_w, W, SIZE, BOUND, ARITHMETIC
    )
    totals = zero
    values = values_ptr + offset + start * stride_w
    steps = _own_steps(steps_ptr, columns, H, W) + offset + start * stride_w
    room = inside & (start + SIZE < W)  # for the step behind the chunk
    started = no_values(zero, SIZE + 1, ARITHMETIC)
    for top in range(2 * tl.program_id(1), H, 2 * splits):
        upper = no_values(zero, SIZE, ARITHMETIC)
        lower = no_values(zero, SIZE, ARITHMETIC)
        running = no_values(zero, SIZE + 1, ARITHMETIC)
        lower_running = no_values(zero, SIZE + 1, ARITHMETIC)
        for bottom in range(top, H):
            row = edge_values(
                values + bottom * stride_h, zero, factors, inside, stride_w, SIZE, BOUND,
                ARITHMETIC,
            )  # fmt: skip
            kh = bottom - top
            upper = add(upper, row, ARITHMETIC)
            lower = add_times(lower, row, tl.where(bottom > top, 1.0, 0.0), ARITHMETIC)
            totals, running = add_band(
                totals, running, upper, width_weight_ptr + kh * W, height_weight_ptr + kh,
                ARITHMETIC,
            )  # fmt: skip
            if bottom > top:
                totals, lower_running = add_band(
                    totals, lower_running, lower, width_weight_ptr + (kh - 1) * W,
                    height_weight_ptr + kh - 1, ARITHMETIC,
                )  # fmt: skip
            if bottom + 1 < H:
                ended = add(running, lower_running, ARITHMETIC)
                below = steps + (bottom + 1) * stride_h
                _subtract_from_row(below, ended, inside, room, stride_w, ARITHMETIC)
        started = add(started, running, ARITHMETIC)
        _add_to_row(steps + top * stride_h, started, inside, room, stride_w, ARITHMETIC)
        if top + 1 < H:
            started = add(started, lower_running, ARITHMETIC)
            for row in range(top + 1, tl.minimum(top + 2 * splits, H)):
                _add_to_row(steps + row * stride_h, started, inside, room, stride_w, ARITHMETIC)
    part_ptr += tl.program_id(1).to(tl.int64) * columns * len(zero)
    mean = 1.0 / (zero[0] + rectangles)  # in DTYPE, as a float argument is a float32
    store_lanes(part_ptr, column, totals, inverses, mean, inside)


@triton.jit(do_not_specialize=["columns", "splits", "start", "last"])
def gate_across_kernel(
    values_ptr,  # (N, H, W, D)
    part_ptr,  # as above
    steps_ptr,  # as above
    width_weight_ptr,
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
    """Rectangles that start in one chunk and end in a later one."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    offset = (column // D) * H * (W * D) + column % D
    zero = zero_lanes(BLOCK, DTYPE, ARITHMETIC)
    factors, inverses = column_scales(
        values_ptr + offset, inside, zero, H, stride_h, stride_w, W, FIRST, BOUND, ARITHMETIC
    )
    totals = zero
    own_steps = _own_steps(steps_ptr, columns, H, W) + offset
    behind = own_steps + (last + 1) * stride_w
    room = inside & (last + LAST < W)  # for the step behind it
    values = values_ptr + offset + start * stride_w
    steps = own_steps + start * stride_w
    up_started = no_values(zero, FIRST, ARITHMETIC)
    down_started = no_values(zero, LAST, ARITHMETIC)
    for top in range(2 * tl.program_id(1), H, 2 * splits):
        left = no_values(zero, FIRST, ARITHMETIC)
        right = no_values(zero, LAST, ARITHMETIC)
        up = no_values(zero, FIRST, ARITHMETIC)
        down = no_values(zero, LAST, ARITHMETIC)
        lower_left = no_values(zero, FIRST, ARITHMETIC)
        lower_right = no_values(zero, LAST, ARITHMETIC)
        lower_up = no_values(zero, FIRST, ARITHMETIC)
        lower_down = no_values(zero, LAST, ARITHMETIC)
        for bottom in range(top, H):
            row_left, row_right = rows_of_two_chunks(
                values + bottom * stride_h, last - start, zero, factors, inside, stride_w,
                FIRST, LAST, BOUND, ARITHMETIC,
            )  # fmt: skip
            kh = bottom - top
            weights = width_weight_ptr + kh * W + (last - start)
            left = add(left, row_left, ARITHMETIC)
            right = add(right, row_right, ARITHMETIC)
            in_lower = tl.where(bottom > top, 1.0, 0.0)
            lower_left = add_times(lower_left, row_left, in_lower, ARITHMETIC)
            lower_right = add_times(lower_right, row_right, in_lower, ARITHMETIC)
            totals, up, down = _add_across(
                totals, up, down, left, right, weights, height_weight_ptr + kh, ARITHMETIC
            )
            if bottom > top:
                totals, lower_up, lower_down = _add_across(
                    totals, lower_up, lower_down, lower_left, lower_right, weights - W,
                    height_weight_ptr + kh - 1, ARITHMETIC,
                )  # fmt: skip
            if bottom + 1 < H:
                below = (bottom + 1) * stride_h
                ended = add(up, lower_up, ARITHMETIC)
                _subtract_from_row(steps + below, ended, inside, inside, stride_w, ARITHMETIC)
                ended = add(down, lower_down, ARITHMETIC)
                _add_to_row(behind + below, ended, inside, room, stride_w, ARITHMETIC)
        row_top = top * stride_h
        up_started = add(up_started, up, ARITHMETIC)
        down_started = add(down_started, down, ARITHMETIC)
        _add_to_row(steps + row_top, up_started, inside, inside, stride_w, ARITHMETIC)
        _subtract_from_row(behind + row_top, down_started, inside, room, stride_w, ARITHMETIC)
        if top + 1 < H:  # or the sums take more registers than there are
            up_started = add(up_started, lower_up, ARITHMETIC)
            down_started = add(down_started, lower_down, ARITHMETIC)
            for row in range(top + 1, tl.minimum(top + 2 * splits, H)):
                below = row * stride_h
                _add_to_row(steps + below, up_started, inside, inside, stride_w, ARITHMETIC)
                _subtract_from_row(behind + below, down_started, inside, room, stride_w, ARITHMETIC)
    part_ptr += tl.program_id(1).to(tl.int64) * columns * len(zero)
    mean = 1.0 / (zero[0] + rectangles)
    store_lanes(part_ptr, column, totals, inverses, mean, inside)


@triton.jit(do_not_specialize=["columns"])
def gate_finish_kernel(
    gate_ptr,  # (N, H, W, D)
    steps_ptr,  # as above; may be the gate map itself where SPLITS is 1
    columns,
    H,
    rectangles,
    D: tl.constexpr,
    stride_h: tl.constexpr,
    stride_w: tl.constexpr,
    W: tl.constexpr,
    CHUNK: tl.constexpr,
    SPLITS: tl.constexpr,
    ARITHMETIC: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum the steps of one row, all splits' together, along W into the gate map."""
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    offset = (column // D) * H * (W * D) + column % D + tl.program_id(1) * stride_h
    zero = zero_lanes(BLOCK, DTYPE, ARITHMETIC)
    scale = H * W / (zero[0] + rectangles)
    sums = zero
    for first in range(0, W, CHUNK):
        place = offset + first * stride_w
        for j in tl.static_range(CHUNK):
            there = inside & (first + j < W)
            step = load_steps(steps_ptr + place + j * stride_w, there, stride_w, 1)
            for split in tl.static_range(1, SPLITS):
                other = steps_ptr + split * _size_of_steps(columns, H, W) + place + j * stride_w
                step = add(step, load_steps(other, there, stride_w, 1), ARITHMETIC)
            sums = store_gates(
                gate_ptr + place + j * stride_w, sums, step, scale, there, stride_w, ARITHMETIC
            )


@triton.jit
def _own_steps(steps_ptr, columns, H, W: tl.constexpr):
    """The steps of this program's split."""
    return steps_ptr + tl.program_id(1) * _size_of_steps(columns, H, W)


@triton.jit
def _size_of_steps(columns, H, W: tl.constexpr):
    return columns.to(tl.int64) * H * W


@triton.jit
def _add_across(
    totals, up, down, left, right, width_weight_ptr, height_weight_ptr, ARITHMETIC: tl.constexpr
):  # fmt: skip
    """As gate_bands.add_band; `width_weight_ptr` is at the width that is 1 in the last chunk."""
    ups, downs = _steps_across(left, right, width_weight_ptr, ARITHMETIC)
    amount = sum_of_products(tl.zeros_like(left[0]), ups, left, ARITHMETIC)
    amount = sum_of_products(amount, downs, right, ARITHMETIC)
    kh_weight = tl.load(height_weight_ptr)
    totals = add_lanes(totals, lanes_of(amount, ARITHMETIC), kh_weight)
    up = add_times(up, ups, kh_weight, ARITHMETIC)
    down = add_times(down, downs, kh_weight, ARITHMETIC)
    return totals, up, down


@triton.jit
def _steps_across(left, right, width_weight_ptr, ARITHMETIC: tl.constexpr):
    """Weighted steps up in the first chunk, and down behind each column of the last chunk."""
    FIRST: tl.constexpr = len(left)
    LAST: tl.constexpr = len(right)
    zero = tl.zeros_like(left[0])
    limits = ()
    ups = ()
    for start in tl.static_range(FIRST):
        limits = limits + (negative(left[start], ARITHMETIC),)
        ups = ups + (zero,)
    downs = ()
    for _ in tl.static_range(LAST):
        downs = downs + (zero,)
    for lead in tl.static_range(1 - FIRST, LAST):
        weight = tl.load(width_weight_ptr + lead) + zero
        gates = ()
        for start in tl.static_range(max(0, -lead), min(FIRST, LAST - lead)):
            gates = gates + (is_greater(right[start + lead], limits[start], ARITHMETIC),)
        more_ups = ()
        for start in tl.static_range(FIRST):
            up = ups[start]
            if start + lead >= 0 and start + lead < LAST:
                up = fma_values(gates[start - max(0, -lead)], weight, up, ARITHMETIC)
            more_ups = more_ups + (up,)
        more_downs = ()
        for end in tl.static_range(LAST):
            down = downs[end]
            if end - lead >= 0 and end - lead < FIRST:
                down = fma_values(gates[end - max(0, lead)], weight, down, ARITHMETIC)
            more_downs = more_downs + (down,)
        ups = more_ups
        downs = more_downs
    return ups, downs


@triton.jit
def _add_to_row(ptr, x, inside, room, stride_w, ARITHMETIC: tl.constexpr):
    """Add to the row at `ptr`; the last number only where there is room for it."""
    LAST: tl.constexpr = len(x) - 1
    for j in tl.static_range(LAST + 1):
        there = room if j == LAST else inside
        place = ptr + j * stride_w
        old = tl.load(place, mask=there, other=0)
        tl.store(place, add_values(old, x[j], ARITHMETIC), mask=there)


@triton.jit
def _subtract_from_row(ptr, x, inside, room, stride_w, ARITHMETIC: tl.constexpr):
    """Subtract from the row at `ptr`; the last number only where there is room for it."""
    LAST: tl.constexpr = len(x) - 1
    for j in tl.static_range(LAST + 1):
        there = room if j == LAST else inside
        place = ptr + j * stride_w
        old = tl.load(place, mask=there, other=0)
        tl.store(place, subtract_values(old, x[j], ARITHMETIC), mask=there)
