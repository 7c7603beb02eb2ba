"""The gate map and the mean of all rectangles' ReLU, for maps whose bands are unrolled as a whole.

A rectangle that is open, that is, whose sum is positive, adds its weight to the positions it holds:
a step up and a step down along W in each of its rows. The gate map's rows are prefix sums of steps.
`running` holds the steps of the bands that start at row `top` and end at `bottom` or above, so a
row has the steps of all bands that start in it or above, less those of bands that ended before it.
What ended is collected in memory, in `steps`; what started is kept in registers.
"""

import triton
import triton.language as tl

from lca_fused.backends.triton_gpu.arithmetic import (
    fma_values,
    is_greater,
    lanes_of,
    pack_bfloat16,
    subtract_product,
)
from lca_fused.backends.triton_gpu.bands import (
    add_lanes,
    add_times,
    column_scales,
    edge_values,
    no_values,
    store_lanes,
    with_middle_edge,
    without_middle_edge,
    zero_lanes,
)
from lca_fused.backends.triton_gpu.columns import add, subtract


@triton.jit(do_not_specialize=["columns"])  # or batches of other sizes would compile it again
def gate_whole_kernel(
    values_ptr,  # (N, H, W, D)
    pooled_ptr,  # (N, D)
    gate_ptr,  # as values
    steps_ptr,  # as values, in the dtype of band values; may be the gate map itself
    width_weight_ptr,  # (H, W): 1 / kw of kernel size (kh, kw), 0 where it is not wanted
    height_weight_ptr,  # (H,): 1 / kh
    columns,  # N * D, in elements
    H,
    rectangles,
    D: tl.constexpr,
    stride_h: tl.constexpr,
    stride_w: tl.constexpr,
    W: tl.constexpr,
    BOUND: tl.constexpr,
    ARITHMETIC: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One thread per element, BLOCK per program.

    A thread reads back what it wrote to `steps`, so BLOCK must be the number of threads: then every
    load and store of BLOCK numbers has the same one layout.
    """
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    offset = (column // D) * H * (W * D) + column % D
    values = values_ptr + offset
    steps = steps_ptr + offset
    gates = gate_ptr + offset
    zero = zero_lanes(BLOCK, DTYPE, ARITHMETIC)
    factors, inverses = column_scales(
        values, inside, zero, H, stride_h, stride_w, W, W, BOUND, ARITHMETIC
    )
    mean = 1.0 / (zero[0] + rectangles)  # in DTYPE, as a float argument is a float32
    totals = zero
    started = no_values(zero, W, ARITHMETIC)
    for top in range(0, H, 2):
        not_first = inside & (top > 0)  # the first time steps are collected, there are none yet
        upper = no_values(zero, W, ARITHMETIC)
        lower = no_values(zero, W, ARITHMETIC)
        running = no_values(zero, W, ARITHMETIC)
        lower_running = no_values(zero, W, ARITHMETIC)
        for bottom in range(top, H):
            row = edge_values(
                values + bottom * stride_h, zero, factors, inside, stride_w, W, BOUND, ARITHMETIC
            )
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
                old = load_steps(below, not_first, stride_w, W)
                store_steps(below, subtract(old, ended, ARITHMETIC), inside, stride_w)
        started = add(started, running, ARITHMETIC)
        ended = load_steps(steps + top * stride_h, not_first, stride_w, W)
        row_steps = add(ended, started, ARITHMETIC)
        store_gates(
            gates + top * stride_h, zero, row_steps, mean * (H * W), inside, stride_w, ARITHMETIC
        )
        started = add(started, lower_running, ARITHMETIC)
        if top + 1 < H:
            below = (top + 1) * stride_h
            ended = load_steps(steps + below, inside, stride_w, W)
            row_steps = add(ended, started, ARITHMETIC)
            store_gates(
                gates + below, zero, row_steps, mean * (H * W), inside, stride_w, ARITHMETIC
            )
    store_lanes(pooled_ptr, column, not_negative(totals), inverses, mean, inside)


@triton.jit
def add_band(totals, running, band, width_weight_ptr, height_weight_ptr, ARITHMETIC: tl.constexpr):
    """Add a band's mean of ReLU to the totals and its steps to `running`; return both.

    The sum of weight * rectangle over open rectangles is that of value * step down over edges.
    """
    steps = _steps_within(band, width_weight_ptr, ARITHMETIC)
    where_not_zero = without_middle_edge(steps)
    amount = sum_of_products(tl.zeros_like(band[0]), where_not_zero, band, ARITHMETIC)
    kh_weight = tl.load(height_weight_ptr)
    totals = add_lanes(totals, lanes_of(amount, ARITHMETIC), -kh_weight)
    return totals, add_times(running, steps, kh_weight, ARITHMETIC)


@triton.jit
def sum_of_products(total, x, y, ARITHMETIC: tl.constexpr):
    """`total` plus the inner product of two tuples of values."""
    for j in tl.static_range(len(x)):
        total = fma_values(x[j], y[j], total, ARITHMETIC)
    return total


@triton.jit
def _steps_within(band, width_weight_ptr, ARITHMETIC: tl.constexpr):
    """Weighted steps of a band's open rectangles; the last one is behind the band.

    Width by width, so that few weights and gates need be held at a time.
    """
    SIZE: tl.constexpr = len(band)
    edges = with_middle_edge(band)
    zero = tl.zeros_like(band[0])
    steps = (zero,)
    for _ in tl.static_range(SIZE):
        steps = steps + (zero,)
    for width in tl.static_range(1, SIZE + 1):
        weight = tl.broadcast_to(tl.load(width_weight_ptr + width - 1), zero.shape)
        gates = ()
        for start in tl.static_range(SIZE + 1 - width):
            gates = gates + (is_greater(edges[start + width], edges[start], ARITHMETIC),)
        new = ()
        for j in tl.static_range(SIZE + 1):
            step = steps[j]
            if j + width <= SIZE:
                step = fma_values(gates[j], weight, step, ARITHMETIC)
            if j >= width:
                step = subtract_product(step, gates[j - width], weight, ARITHMETIC)
            new = new + (step,)
        steps = new
    return steps


@triton.jit
def load_steps(ptr, wanted, stride_w, SIZE: tl.constexpr):
    """SIZE neighbours from `ptr` on, 0 where they are not wanted."""
    out = ()
    for j in tl.static_range(SIZE):
        out = out + (tl.load(ptr + j * stride_w, mask=wanted, other=0),)
    return out


@triton.jit
def store_steps(ptr, x, inside, stride_w):
    """Store a tuple of values as neighbours."""
    for j in tl.static_range(len(x)):
        tl.store(ptr + j * stride_w, x[j], mask=inside)


@triton.jit
def store_gates(ptr, sums, steps, scale, inside, stride_w, ARITHMETIC: tl.constexpr):
    """Store prefix sums of a row's steps, added to `sums`, times a number; return the last one."""
    for j in tl.static_range(len(steps)):
        sums = add_lanes(sums, lanes_of(steps[j], ARITHMETIC), 1.0)
        if ARITHMETIC == "halves":
            gate = pack_bfloat16(sums[0] * scale, sums[1] * scale)
        else:
            gate = sums[0] * scale
        tl.store(ptr + j * stride_w, gate, mask=inside)
    return sums


@triton.jit
def not_negative(totals):
    """The totals, but rounding errors below zero become zero: no mean of a ReLU is negative."""
    out = ()
    for lane in tl.static_range(len(totals)):
        out = out + (tl.where(totals[lane] < 0, 0.0, totals[lane]),)
    return out
