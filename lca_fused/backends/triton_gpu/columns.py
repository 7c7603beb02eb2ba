"""Rectangle pooling of columns held in registers: straight-line code, unrolled at compile time.

A column is one feature of one image, H*W numbers; here it comes as a tuple of H*W tensors whose
elements are columns, so that a GPU thread holds whole columns. Everything is built from prefix
sums along W: those of a band of rows [top, bottom] are those of the band one row shorter plus
those of row `bottom`. A rectangle is then the difference of two of them.

SIZES is a bit mask of kernel sizes: bit (kh - 1) * W + (kw - 1) stands for (kh, kw). ARITHMETIC is
explained in arithmetic.py.
"""

import triton
import triton.language as tl

from lca_fused.backends.triton_gpu.arithmetic import (
    add_amounts,
    add_values,
    add_weighted,
    biased_exponent,
    ceil_log2,
    fma_halves,
    halves_of,
    is_greater,
    larger_magnitude,
    larger_magnitude_of_bfloat16,
    lower_bfloat16,
    pack,
    power_of_two,
    relu_of,
    relu_of_difference,
    subtract_values,
    upper_bfloat16,
)


@triton.constexpr_function
def widths_of(SIZES, kh, W):
    """Bit kw - 1 is set where (kh, kw) is one of the kernel sizes."""
    return (SIZES >> ((kh - 1) * W)) & ((1 << W) - 1)


@triton.constexpr_function
def tallest(SIZES, W):
    """The greatest kh among the kernel sizes."""
    return (SIZES.bit_length() - 1) // W + 1


@triton.constexpr_function
def headroom(H, W):
    """Bits by which a sum over part of a map may exceed its largest number, below 2."""
    return 1 + ceil_log2(H * W)


@triton.constexpr_function
def fixed_point_of_one(H, W):
    """What 1 is scaled to, so that sums over part of a map stay below 2^-125."""
    return 2.0 ** -(125 + headroom(H, W))


@triton.constexpr_function
def halves_exponent(H, W):
    """The exponent to scale a column's largest number to, for sums that halves can hold.

    The largest sum is that over all rectangles of one size, of kh * kw numbers each.
    """
    largest = max(k * (H + 1 - k) for k in range(1, H + 1))
    largest *= max(k * (W + 1 - k) for k in range(1, W + 1))
    return 15 - 1 - ceil_log2(largest)


@triton.jit
def add(x, y, ARITHMETIC: tl.constexpr):
    """Elementwise x + y of two tuples of values."""
    out = ()
    for j in tl.static_range(len(x)):
        out = out + (add_values(x[j], y[j], ARITHMETIC),)
    return out


@triton.jit
def subtract(x, y, ARITHMETIC: tl.constexpr):
    """Elementwise x - y of two tuples of values."""
    out = ()
    for j in tl.static_range(len(x)):
        out = out + (subtract_values(x[j], y[j], ARITHMETIC),)
    return out


@triton.jit
def zeros(like, SIZE: tl.constexpr):
    """SIZE tensors of zeros shaped as `like`."""
    out = ()
    for _ in tl.static_range(SIZE):
        out = out + (tl.zeros_like(like),)
    return out


@triton.jit
def replaced(x, START: tl.constexpr, part):
    """`x` with the values from START on replaced by those of `part`."""
    return x[:START] + part + x[START + len(part) :]


@triton.jit
def prefix_sums(x, ARITHMETIC: tl.constexpr):
    """x[0], x[0] + x[1], ... of a tuple of values: as long as x."""
    total = x[0]
    out = (total,)
    for j in tl.static_range(1, len(x)):
        total = add_values(total, x[j], ARITHMETIC)
        out = out + (total,)
    return out


@triton.jit
def row_prefix_sums(column, H: tl.constexpr, W: tl.constexpr):
    """The prefix sums along W of every row of a column."""
    rows = ()
    for i in tl.static_range(H):
        rows = rows + prefix_sums(column[i * W : i * W + W], "maximum")
    return rows


@triton.jit
def nan_if_not_finite(rows, H: tl.constexpr, W: tl.constexpr):
    """0, or NaN for a column that holds NaN or an infinity, from the row's prefix sums."""
    total = rows[W - 1]
    for i in tl.static_range(1, H):
        total = total + rows[i * W + W - 1]
    return total * 0


@triton.jit
def scaled_prefix_sums(column, H: tl.constexpr, W: tl.constexpr, ARITHMETIC: tl.constexpr):
    """Values of a column's rows, and the unit of the totals.

    The unit is NaN where a number is NaN or infinite.
    """
    if ARITHMETIC == "maximum":
        rows = row_prefix_sums(column, H, W)
        return rows, nan_if_not_finite(rows, H, W) + 1
    else:
        exponent = biased_exponent(_largest_magnitude(column))
        if ARITHMETIC == "saturated":
            scale = power_of_two(254 - headroom(H, W) - exponent)
            rows = _scaled_row_prefix_sums(column, scale, 1.0, H, W)
            unit = power_of_two(tl.minimum(exponent + headroom(H, W), 255))
        else:
            # In two steps, as the product may be too small for a float32.
            scale = power_of_two(254 - exponent)
            rows = _scaled_row_prefix_sums(column, scale, fixed_point_of_one(H, W), H, W)
            unit = power_of_two(exponent) * (2.0**-149 / fixed_point_of_one(H, W))
        return rows, tl.where(exponent == 255, float("nan"), unit)


@triton.jit
def _largest_magnitude(column):
    largest = tl.abs(column[0])
    for k in tl.static_range(1, len(column)):
        largest = larger_magnitude(largest, column[k])
    return largest


@triton.jit
def _scaled_row_prefix_sums(
    column, scale, factor: tl.constexpr, H: tl.constexpr, W: tl.constexpr
):  # fmt: skip
    """Prefix sums along W of `column * scale`, each times a constant."""
    rows = ()
    for i in tl.static_range(H):
        total = column[i * W] * scale
        rows = rows + (total * factor,)
        for j in tl.static_range(1, W):
            total = tl.fma(column[i * W + j], scale, total)
            rows = rows + (total * factor,)
    return rows


@triton.jit
def packed_prefix_sums(pairs, H: tl.constexpr, W: tl.constexpr, XORSIGN: tl.constexpr):
    """Values in halves of two columns, H*W pairs of bfloat16, and the unit of each column."""
    largest = tl.zeros_like(pairs[0])
    for k in tl.static_range(H * W):
        largest = larger_magnitude_of_bfloat16(largest, pairs[k], XORSIGN)
    lower_scale, lower_unit = _halves_scale(lower_bfloat16(largest), H, W)
    upper_scale, upper_unit = _halves_scale(upper_bfloat16(largest), H, W)
    rows = ()
    for i in tl.static_range(H):
        lower = tl.zeros_like(lower_scale)
        upper = tl.zeros_like(upper_scale)
        for j in tl.static_range(W):
            pair = pairs[i * W + j]
            lower = tl.fma(lower_bfloat16(pair), lower_scale, lower)
            upper = tl.fma(upper_bfloat16(pair), upper_scale, upper)
            rows = rows + (pack(lower, upper),)
    return rows, lower_unit, upper_unit


@triton.jit
def _halves_scale(largest, H: tl.constexpr, W: tl.constexpr):
    """A power of two for a column with this largest magnitude, and its reciprocal, or NaN."""
    shift: tl.constexpr = halves_exponent(H, W)
    exponent = biased_exponent(largest)
    scaled = tl.maximum(exponent, shift + 1)
    unit = tl.where(exponent == 255, float("nan"), power_of_two(scaled - shift))
    return power_of_two(254 + shift - scaled), unit


@triton.jit
def sum_of_rectangles(
    rows, H: tl.constexpr, W: tl.constexpr, SIZES: tl.constexpr, ARITHMETIC: tl.constexpr
):  # fmt: skip
    """The totals, over all rectangles, of relu(sum over the rectangle) / (kh * kw)."""
    if ARITHMETIC == "halves":
        totals = (tl.zeros(rows[0].shape, tl.float32), tl.zeros(rows[0].shape, tl.float32))
    else:
        totals = (tl.zeros_like(rows[0]),)
    bands = rows
    for kh in tl.static_range(1, tallest(SIZES, W) + 1):
        if kh > 1:
            bands = _grown(bands, rows, kh, H, W, ARITHMETIC)
        for kw in tl.static_range(1, W + 1):
            if (widths_of(SIZES, kh, W) >> (kw - 1)) & 1:
                amount = _sum_of_size(bands, kw, H - kh + 1, W, ARITHMETIC)
                weight = tl.full(totals[0].shape, 1.0 / (kh * kw), totals[0].dtype)
                totals = add_weighted(totals, amount, weight, ARITHMETIC)
    return totals


@triton.jit
def _grown(
    bands, rows, KH: tl.constexpr, H: tl.constexpr, W: tl.constexpr, ARITHMETIC: tl.constexpr
):  # fmt: skip
    """The bands of KH rows from those of KH - 1."""
    out = ()
    for top in tl.static_range(H - KH + 1):
        last_row = rows[(top + KH - 1) * W : (top + KH) * W]
        out = out + add(bands[top * W : top * W + W], last_row, ARITHMETIC)
    return out


@triton.jit
def _sum_of_size(
    bands, KW: tl.constexpr, BANDS: tl.constexpr, W: tl.constexpr, ARITHMETIC: tl.constexpr
):  # fmt: skip
    """The amount of all rectangles of width KW in bands of one height."""
    amount = relu_of(bands[KW - 1], ARITHMETIC)
    for top in tl.static_range(BANDS):
        if top > 0:
            amount = add_amounts(amount, relu_of(bands[top * W + KW - 1], ARITHMETIC), ARITHMETIC)
        for end in tl.static_range(KW, W):
            rectangle = relu_of_difference(
                bands[top * W + end], bands[top * W + end - KW], ARITHMETIC
            )
            amount = add_amounts(amount, rectangle, ARITHMETIC)
    return amount


@triton.jit
def gates_of_rows(
    rows, H: tl.constexpr, W: tl.constexpr, SIZES: tl.constexpr, ARITHMETIC: tl.constexpr
):
    """R * M for the gate map M, H*W values, from the prefix sums of a column's rows.

    A rectangle adds its weight to the positions it holds, that is, a step up and a step down
    along W in each of its rows. `running` holds the steps of the bands that start at row `top`
    and end at `bottom` or above, so a row holds what all bands that start in it or above come to,
    less what had ended before it: `started` less `ended`.
    """
    started = ()
    ended = ()  # from row 1 on: above row 0 nothing ends
    gates = ()
    for top in tl.static_range(H):
        band = rows[top * W : top * W + W]
        running = zeros(rows[0], W)
        for bottom in tl.static_range(top, H):
            if bottom > top:
                band = add(band, rows[bottom * W : bottom * W + W], ARITHMETIC)
            running = _add_band_steps(
                running,
                band,
                bottom - top + 1,
                widths_of(SIZES, bottom - top + 1, W),
                ARITHMETIC,
            )
            if bottom + 1 < H:
                if top == 0:
                    ended = ended + running
                else:
                    below = add(ended[bottom * W : bottom * W + W], running, ARITHMETIC)
                    ended = replaced(ended, bottom * W, below)
        if top == 0:
            started = running
            steps = started
        else:
            started = add(started, running, ARITHMETIC)
            steps = subtract(started, ended[(top - 1) * W : top * W], ARITHMETIC)
        gates = gates + prefix_sums(steps, ARITHMETIC)
    return gates


@triton.jit
def _add_band_steps(
    running, band, KH: tl.constexpr, WIDTHS: tl.constexpr, ARITHMETIC: tl.constexpr
):  # fmt: skip
    """Add the steps along W of every rectangle of a band whose sum is positive.

    The gate is a number, 0 or 1, that is multiplied and added: one comparison and two FMA per
    rectangle. As a predicate it must be kept and combined, which costs more instructions.
    """
    W: tl.constexpr = len(band)
    for start in tl.static_range(W):
        up = running[start]
        down = ()
        for end in tl.static_range(start + 1, W + 1):
            before = tl.zeros_like(up) if start == 0 else band[start - 1]
            old = tl.zeros_like(up) if end == W else running[end]
            if (WIDTHS >> (end - start - 1)) & 1:
                gate = is_greater(band[end - 1], before, ARITHMETIC)
                up = _add_weighted_gate(up, gate, 1.0 / (KH * (end - start)), ARITHMETIC)
                old = _add_weighted_gate(old, gate, -1.0 / (KH * (end - start)), ARITHMETIC)
            if end < W:
                down = down + (old,)
        running = running[:start] + (up,) + down
    return running


@triton.jit
def _add_weighted_gate(x, gate, WEIGHT: tl.constexpr, ARITHMETIC: tl.constexpr):
    if ARITHMETIC == "halves":
        return fma_halves(gate, halves_of(x, WEIGHT), x)
    else:
        return tl.fma(gate, tl.full(x.shape, WEIGHT, x.dtype), x)
