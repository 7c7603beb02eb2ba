"""Rows, bands of rows and their prefix sums, as the kernels for large maps take them from memory.

A *band* is the rows [top, bottom] of a map, held as sums along W of their sum: for every edge
between columns the sum from the middle edge to there, negative to the left of it. As with prefix
sums a rectangle is the difference of two, but these hold half as many numbers at most: they are
smaller, and so are their roundings. A band is the one that ends a row higher plus a row, so a loop
over `bottom` walks all bands that start at `top`.

Two top rows go through one loop: what a row costs is shared by the bands of both. A row is added to
the lower band right away, zero times for the row that only the upper one has, so that it need not
be kept while the upper band is worked on.

A thread holds one column, or, in packed halves, two: its *lanes*. Pointers, strides and counts of
columns are in elements, which then are int32 of two bfloat16 each.
"""

import triton
import triton.language as tl

from lca_fused.backends.triton_gpu.arithmetic import (
    biased_exponent,
    fma_values,
    larger_magnitude,
    larger_magnitude_of_bfloat16,
    lower_bfloat16,
    pack,
    power_of_two,
    upper_bfloat16,
)


@triton.jit
def add_times(x, y, factor, ARITHMETIC: tl.constexpr):
    """Tuple x plus a number, in the dtype of the lanes, times tuple y."""
    if ARITHMETIC == "halves":
        same = factor + tl.zeros_like(x[0]).to(tl.float32)
        factors = pack(same, same)
    else:
        factors = factor + tl.zeros_like(x[0])
    out = ()
    for j in tl.static_range(len(x)):
        out = out + (fma_values(y[j], factors, x[j], ARITHMETIC),)
    return out


@triton.jit
def column_scales(
    values,
    inside,
    no_lanes,  # zeros in the dtype of the lanes, one for each
    H,
    stride_h,
    stride_w: tl.constexpr,
    W: tl.constexpr,
    CHUNK: tl.constexpr,
    BOUND: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):
    """A factor for the values of each lane, and one that takes it back from its totals.

    All sums of a column stay in the range of the arithmetic as long as they hold no more than
    2**BOUND times its largest magnitude. The second factor is NaN for a column that holds NaN or
    an infinity, which some arithmetics lose.
    """
    if ARITHMETIC == "maximum":
        return _unscaled(values, inside, no_lanes, H, stride_h, stride_w, W, CHUNK)
    else:
        largest = _largest(values, inside, no_lanes, H, stride_h, stride_w, W, CHUNK, ARITHMETIC)
        factors = ()
        inverses = ()
        for lane in tl.static_range(len(largest)):
            factor, inverse = _scale(largest[lane], BOUND, ARITHMETIC)
            factors = factors + (factor,)
            inverses = inverses + (inverse,)
        return factors, inverses


@triton.jit
def _unscaled(
    values, inside, no_lanes, H, stride_h, stride_w: tl.constexpr, W: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    poison = no_lanes[0]
    for i in range(H):
        for first in range(0, W, CHUNK):
            for j in tl.static_range(CHUNK):
                place = values + i * stride_h + (first + j) * stride_w
                value = tl.load(place, mask=inside & (first + j < W), other=0.0)
                poison = tl.fma(value.to(poison.dtype), tl.zeros_like(poison), poison)
    return (tl.zeros_like(poison) + 1.0,), (poison + 1.0,)


@triton.jit
def _largest(
    values, inside, no_lanes, H, stride_h, stride_w: tl.constexpr, W: tl.constexpr,
    CHUNK: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """The largest magnitude in each lane's column."""
    if ARITHMETIC == "halves":
        largest = tl.zeros_like(no_lanes[0]).to(tl.int32)
    else:
        largest = tl.zeros_like(no_lanes[0])
    for i in range(H):
        for first in range(0, W, CHUNK):
            for j in tl.static_range(CHUNK):
                place = values + i * stride_h + (first + j) * stride_w
                value = tl.load(place, mask=inside & (first + j < W), other=0)
                if ARITHMETIC == "halves":
                    largest = larger_magnitude_of_bfloat16(largest, value, False)
                else:
                    largest = larger_magnitude(largest, value.to(largest.dtype))
    if ARITHMETIC == "halves":
        return tl.abs(lower_bfloat16(largest)), tl.abs(upper_bfloat16(largest))
    else:
        return (largest,)


@triton.jit
def _scale(magnitude, BOUND: tl.constexpr, ARITHMETIC: tl.constexpr):
    exponent = tl.maximum(biased_exponent(magnitude), 16)  # so that the factor is no infinity
    if ARITHMETIC == "halves":  # sums up to 2**15
        factor = power_of_two(268 - BOUND - exponent)
        inverse = 2.0 ** (BOUND - 14)
    elif ARITHMETIC == "saturated":  # sums below 1
        factor = power_of_two(253 - BOUND - exponent)
        inverse = 2.0 ** (BOUND + 1)
    else:  # `value_of` takes sums from 2**(BOUND + 1) to 2**-125, amounts count 2**-149
        factor = power_of_two(254 - exponent)
        inverse = 2.0 ** (BOUND - 23)
    return factor, inverse * power_of_two(exponent) + (magnitude - magnitude)


@triton.jit
def edge_values(
    ptr, no_lanes, factors, inside, stride_w, SIZE: tl.constexpr, BOUND: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """A row of SIZE columns from `ptr` on, as a value for every edge but the middle one."""
    MIDDLE: tl.constexpr = SIZE // 2
    opposite = ()
    for lane in tl.static_range(len(factors)):
        opposite = opposite + (-factors[lane],)
    left = suffix_values(ptr, no_lanes, opposite, inside, stride_w, MIDDLE, BOUND, ARITHMETIC)
    right = prefix_values(
        ptr + MIDDLE * stride_w, no_lanes, factors, inside, stride_w, SIZE - MIDDLE, BOUND,
        ARITHMETIC,
    )  # fmt: skip
    return left + right


@triton.jit
def with_middle_edge(band):
    """The values at all edges of a band; at the middle one it is zero."""
    MIDDLE: tl.constexpr = len(band) // 2
    return band[:MIDDLE] + (tl.zeros_like(band[0]),) + band[MIDDLE:]


@triton.jit
def without_middle_edge(edges):
    """What belongs to the edges that a band has values for."""
    MIDDLE: tl.constexpr = (len(edges) - 1) // 2
    return edges[:MIDDLE] + edges[MIDDLE + 1 :]


@triton.jit
def prefix_values(
    ptr, sums, factors, inside, stride_w, SIZE: tl.constexpr, BOUND: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """Prefix sums of SIZE scaled numbers from `ptr` on, added to `sums`, as values."""
    out = ()
    for j in tl.static_range(SIZE):
        raw = tl.load(ptr + j * stride_w, mask=inside, other=0)
        sums = add_scaled(sums, raw, factors, ARITHMETIC)
        out = out + (_value_of(sums, BOUND, ARITHMETIC),)
    return out


@triton.jit
def suffix_values(
    ptr, sums, factors, inside, stride_w, SIZE: tl.constexpr, BOUND: tl.constexpr,
    ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """Suffix sums of SIZE scaled numbers from `ptr` on, added to `sums`, as values."""
    out = ()
    for j in tl.static_range(SIZE - 1, -1, -1):
        raw = tl.load(ptr + j * stride_w, mask=inside, other=0)
        sums = add_scaled(sums, raw, factors, ARITHMETIC)
        out = (_value_of(sums, BOUND, ARITHMETIC),) + out
    return out


@triton.jit
def rows_of_two_chunks(
    row, distance, no_lanes, factors, inside, stride_w, FIRST: tl.constexpr, LAST: tl.constexpr,
    BOUND: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """Suffix sums of the FIRST columns at `row`, and prefix sums of those behind up to LAST others.

    The others start `distance` columns behind `row`. A rectangle from the first chunk into the last
    one is a suffix plus a prefix.
    """
    left = no_values(no_lanes, FIRST, ARITHMETIC)
    right = no_values(no_lanes, LAST, ARITHMETIC)
    # Always. What an `if` gives is opaque to the compiler's layout analysis, which would otherwise
    # walk all that is made of a row for each of its loads: half the compile time.
    if distance > 0:
        between = no_lanes
        for first in range(FIRST, distance, LAST):
            for j in tl.static_range(LAST):
                there = inside & (first + j < distance)
                raw = tl.load(row + (first + j) * stride_w, mask=there, other=0)
                between = add_scaled(between, raw, factors, ARITHMETIC)
        left = suffix_values(row, no_lanes, factors, inside, stride_w, FIRST, BOUND, ARITHMETIC)
        right = prefix_values(
            row + distance * stride_w, between, factors, inside, stride_w, LAST, BOUND, ARITHMETIC
        )
    return left, right


@triton.jit
def add_scaled(sums, raw, factors, ARITHMETIC: tl.constexpr):
    """The lanes' sums plus their numbers in a loaded element, scaled."""
    if ARITHMETIC == "halves":
        return (
            tl.fma(lower_bfloat16(raw), factors[0], sums[0]),
            tl.fma(upper_bfloat16(raw), factors[1], sums[1]),
        )
    else:
        return (tl.fma(raw.to(sums[0].dtype), factors[0], sums[0]),)


@triton.jit
def _value_of(sums, BOUND: tl.constexpr, ARITHMETIC: tl.constexpr):
    """The lanes' sums as one value."""
    if ARITHMETIC == "halves":
        return pack(sums[0], sums[1])
    elif ARITHMETIC == "fixed point":
        return sums[0] * 2.0 ** (-126 - BOUND)
    else:
        return sums[0]


@triton.jit
def no_values(no_lanes, SIZE: tl.constexpr, ARITHMETIC: tl.constexpr):
    """SIZE values of zero."""
    zero = no_lanes[0]
    if ARITHMETIC == "halves":
        zero = zero.to(tl.int32)
    out = ()
    for _ in tl.static_range(SIZE):
        out = out + (zero,)
    return out


@triton.jit
def zero_lanes(BLOCK: tl.constexpr, DTYPE: tl.constexpr, ARITHMETIC: tl.constexpr):
    """A zero for each lane."""
    zero = tl.zeros((BLOCK,), DTYPE)
    if ARITHMETIC == "halves":
        return zero, zero
    else:
        return (zero,)


@triton.jit
def add_lanes(totals, sums, factor):
    """`totals` plus `factor` times `sums`, lane by lane."""
    out = ()
    for lane in tl.static_range(len(totals)):
        out = out + (tl.fma(sums[lane], factor, totals[lane]),)
    return out


@triton.jit
def store_lanes(ptr, column, totals, factors, mean, inside):
    """Store every lane's total times its factor and the mean's; lanes are neighbours in memory."""
    LANES: tl.constexpr = len(totals)
    for lane in tl.static_range(LANES):
        total = totals[lane] * factors[lane] * mean
        tl.store(ptr + column * LANES + lane, total, mask=inside)
