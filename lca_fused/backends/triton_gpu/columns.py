"""Rectangle pooling of columns held in registers: straight-line code, unrolled at compile time.

A column is one feature of one image, H*W numbers; here it comes as a tuple of H*W tensors whose
elements are columns, so that a GPU thread holds whole columns. Everything is built from prefix
sums along W: `rows` holds those of every single row of the map, and the prefix sums of a band of
rows [top, bottom] are those of the band one row shorter plus those of row `bottom`. A rectangle
is then one subtraction, and with relu(z) = (z + |z|) / 2 it costs two additions in all, since the
mean of z over all rectangles is a fixed weighting of the positions.

SIZES is a bit mask of kernel sizes: bit (kh - 1) * W + (kw - 1) stands for (kh, kw).
"""

import triton
import triton.language as tl


@triton.constexpr_function
def widths_of(SIZES, kh, W):
    """Bit kw - 1 is set where (kh, kw) is one of the kernel sizes."""
    return (SIZES >> ((kh - 1) * W)) & ((1 << W) - 1)


@triton.constexpr_function
def position_weight(i, j, H, W, SIZES):
    """Sum of 1 / (kh * kw) over the rectangles that hold position (i, j)."""
    weight = 0.0
    for kh in range(1, H + 1):
        for kw in range(1, W + 1):
            if SIZES >> ((kh - 1) * W + kw - 1) & 1:
                rows = min(i, H - kh) - max(0, i - kh + 1) + 1
                columns = min(j, W - kw) - max(0, j - kw + 1) + 1
                weight += rows * columns / (kh * kw)
    return weight


@triton.jit
def add(x, y):
    """Elementwise x + y of two tuples."""
    out = ()
    for j in tl.static_range(len(x)):
        out = out + (x[j] + y[j],)
    return out


@triton.jit
def subtract(x, y):
    """Elementwise x - y of two tuples."""
    out = ()
    for j in tl.static_range(len(x)):
        out = out + (x[j] - y[j],)
    return out


@triton.jit
def scale(x, factor: tl.constexpr):
    """Every tensor of a tuple times a number."""
    out = ()
    for j in tl.static_range(len(x)):
        out = out + (x[j] * factor,)
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
def not_negative(x):
    """x, but rounding errors below zero become zero: no mean of a ReLU is negative. Keeps NaN."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def prefix_sums(x):
    """x[0], x[0] + x[1], ...: as long as x."""
    total = x[0]
    out = (total,)
    for j in tl.static_range(1, len(x)):
        total = total + x[j]
        out = out + (total,)
    return out


@triton.jit
def column_sum(column, H: tl.constexpr, W: tl.constexpr, SIZES: tl.constexpr):
    """Twice the sum over all rectangles of relu(mean over the rectangle)."""
    total = tl.zeros_like(column[0])
    rows = ()
    for i in tl.static_range(H):
        for j in tl.static_range(W):
            total = total + column[i * W + j] * position_weight(i, j, H, W, SIZES)
        rows = rows + prefix_sums(column[i * W : i * W + W])
    for top in tl.static_range(H):
        band = rows[top * W : top * W + W]
        for bottom in tl.static_range(top, H):
            if bottom > top:
                band = add(band, rows[bottom * W : bottom * W + W])
            total = _add_band(total, band, bottom - top + 1, widths_of(SIZES, bottom - top + 1, W))
    return total


@triton.jit
def _add_band(total, band, KH: tl.constexpr, WIDTHS: tl.constexpr):
    """Add |mean| of every rectangle of a band; rectangles of one width share their weight."""
    W: tl.constexpr = len(band)
    for kw in tl.static_range(1, W + 1):
        if (WIDTHS >> (kw - 1)) & 1:
            same_width = tl.abs(band[kw - 1])
            for end in tl.static_range(kw, W):
                same_width += tl.abs(band[end] - band[end - kw])
            total = total + same_width * (1.0 / (KH * kw))
    return total


@triton.jit
def column_gates(column, H: tl.constexpr, W: tl.constexpr, SIZES: tl.constexpr):
    """The sum over rectangles of relu(mean), and R * M for the gate map M.

    A rectangle adds its weight to the positions it holds, that is, a step up and a step down
    along W in each of its rows. `running` holds the steps of the bands that start at row `top`
    and end at `bottom` or above, so a row holds what all bands that start in it or above come to,
    less what had ended before it: `started` less `ended`.
    """
    total = tl.zeros_like(column[0])
    rows = ()
    for i in tl.static_range(H):
        rows = rows + prefix_sums(column[i * W : i * W + W])
    ended = zeros(total, H * W)
    started = zeros(total, W)
    gates = ()
    for top in tl.static_range(H):
        band = rows[top * W : top * W + W]
        running = zeros(total, W)
        for bottom in tl.static_range(top, H):
            if bottom > top:
                band = add(band, rows[bottom * W : bottom * W + W])
            running = _add_band_steps(
                running, band, bottom - top + 1, widths_of(SIZES, bottom - top + 1, W)
            )
            if bottom + 1 < H:
                below = ended[(bottom + 1) * W : (bottom + 2) * W]
                ended = replaced(ended, (bottom + 1) * W, add(below, running))
        started = add(started, running)
        row_gates = prefix_sums(subtract(started, ended[top * W : top * W + W]))
        # The row is finished, so its numbers can leave the registers: take them back from the
        # prefix sums instead of keeping both.
        total = tl.fma(row_gates[0], rows[top * W], total)
        for j in tl.static_range(1, W):
            value = rows[top * W + j] - rows[top * W + j - 1]
            total = tl.fma(row_gates[j], value, total)
        gates = gates + row_gates
    return total, gates


@triton.jit
def _add_band_steps(running, band, KH: tl.constexpr, WIDTHS: tl.constexpr):
    """Add the steps along W of every rectangle of a band whose sum is positive.

    The gate is a number, 0 or 1, that is multiplied and added: one comparison and two FMA a
    rectangle. As a predicate it must be kept and combined, which costs more instructions.
    """
    W: tl.constexpr = len(band)
    for start in tl.static_range(W):
        up = running[start]
        down = ()
        for end in tl.static_range(start + 1, W + 1):
            if (WIDTHS >> (end - start - 1)) & 1:
                if start == 0:
                    gate = (band[end - 1] > 0).to(up.dtype)
                else:
                    gate = (band[end - 1] > band[start - 1]).to(up.dtype)
                weight = tl.full(gate.shape, 1.0 / (KH * (end - start)), up.dtype)
                up = tl.fma(gate, weight, up)
                if end < W:
                    down = down + (tl.fma(gate, -weight, running[end]),)
            elif end < W:
                down = down + (running[end],)
        running = running[:start] + (up,) + down
    return running
