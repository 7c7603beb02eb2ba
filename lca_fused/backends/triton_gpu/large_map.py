"""Rectangle pooling of maps of any size, band of rows by band of rows.

The bands [top, bottom] are walked in loops and the rectangles of one band are unrolled, so neither
registers nor compile time grow with H. Wide maps are cut into chunks of columns: a rectangle
across two is the sum of a suffix of the first, the columns between, and a prefix of the second.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lca_fused.backends.triton_gpu.columns import add, not_negative, prefix_sums, zeros
from lca_fused.backends.triton_gpu.dispatch import COLUMNS, chunk
from lca_fused.backends.triton_gpu.launch import accumulation, options
from lca_fused.backends.triton_gpu.tables import orientation, weight_tables
from lca_fused.rectangles import KernelSizes


@triton.jit
def large_map_kernel(
    projection_ptr,  # (N, H, W, D)
    pooled_ptr,  # (N, D), contiguous
    gate_ptr,  # as projection, or unused
    steps_ptr,  # as projection, in DTYPE; the gate map itself where that has this dtype
    weight_ptr,  # (H, W): 1 / (kh * kw) of kernel size (kh, kw), 0 where it is not wanted
    position_weight_ptr,  # (H, W): sum of the weights of the rectangles that hold the position
    columns,  # N * D
    D,
    H,
    stride_n,
    stride_h,
    rectangles,
    stride_w: tl.constexpr,
    W: tl.constexpr,
    CHUNK: tl.constexpr,
    GATE: tl.constexpr,
    WITHIN: tl.constexpr,
    ACROSS: tl.constexpr,
    FINISH: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Any map; one thread a column, BLOCK columns a program.

    The gate map of a wide map is made in three launches of this kernel, WITHIN chunks, ACROSS
    chunks and FINISH, only because one kernel of all three would take long to compile.

    With GATE a thread reads back what it wrote to `steps`, so BLOCK must be the number of
    threads: then every load and store of BLOCK numbers has the same one layout.
    """
    column = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    offset = (column // D) * stride_n + column % D
    values = projection_ptr + offset
    total = tl.zeros((BLOCK,), DTYPE)
    mean = 1.0 / (total + rectangles)  # in DTYPE, as a float argument is a float32
    if not GATE:
        total = _weighted_sum(total, values, inside, position_weight_ptr, H, W, stride_h, stride_w)
        total = _sum_rectangles(total, values, inside, weight_ptr, H, W, CHUNK, stride_h, stride_w)
        tl.store(pooled_ptr + column, not_negative(total * (0.5 * mean)), mask=inside)
    else:
        steps = steps_ptr + offset
        if WITHIN:
            _clear(total, steps, inside, H, W, stride_h, stride_w)
            _collect_steps_within(
                total, values, steps, inside, weight_ptr, H, W, CHUNK, stride_h, stride_w
            )
        if ACROSS:
            _collect_steps_across(
                total, values, steps, inside, weight_ptr, H, W, CHUNK, stride_h, stride_w
            )
        if FINISH:
            gates = gate_ptr + offset
            total = _accumulate_steps(
                total, values, steps, gates, inside, H, W, CHUNK, stride_h, stride_w, mean * (H * W)
            )
            tl.store(pooled_ptr + column, not_negative(total / (H * W)), mask=inside)


@triton.jit
def _load(ptr, inside, stride, SIZE: tl.constexpr, DTYPE: tl.constexpr):
    out = ()
    for j in tl.static_range(SIZE):
        out = out + (tl.load(ptr + j * stride, mask=inside, other=0.0).to(DTYPE),)
    return out


@triton.jit
def _store(ptr, x, inside, stride):
    for j in tl.static_range(len(x)):
        tl.store(ptr + j * stride, x[j], mask=inside)


@triton.jit
def _suffix_sums(x):
    total = x[len(x) - 1]
    out = (total,)
    for j in tl.static_range(len(x) - 2, -1, -1):
        total = total + x[j]
        out = (total,) + out
    return out


@triton.jit
def _weighted_sum(total, values, inside, position_weight_ptr, H, W, stride_h, stride_w):
    for i in range(H):
        row_total = tl.zeros_like(total)
        for j in range(W):
            value = tl.load(values + i * stride_h + j * stride_w, mask=inside, other=0.0)
            row_total += value.to(total.dtype) * tl.load(position_weight_ptr + i * W + j)
        total += row_total
    return total


@triton.jit
def _sum_rectangles(
    total, values, inside, weight_ptr, H, W: tl.constexpr, CHUNK: tl.constexpr, stride_h, stride_w
):  # fmt: skip
    """Add |mean| of every rectangle: those within a chunk, then those across two chunks."""
    REST: tl.constexpr = W % CHUNK
    for first in range(0, W - REST, CHUNK):
        start = values + first * stride_w
        total = _sum_within(total, start, inside, weight_ptr, H, W, CHUNK, stride_h, stride_w)
        if W // CHUNK > 1:
            for last in range(first + CHUNK, W - REST, CHUNK):
                total = _sum_across(
                    total, start, last - first, inside, weight_ptr, H, W, CHUNK, CHUNK,
                    stride_h, stride_w,
                )  # fmt: skip
        if REST > 0:
            total = _sum_across(
                total, start, W - REST - first, inside, weight_ptr, H, W, CHUNK, REST,
                stride_h, stride_w,
            )  # fmt: skip
    if REST > 0:
        start = values + (W - REST) * stride_w
        total = _sum_within(total, start, inside, weight_ptr, H, W, REST, stride_h, stride_w)
    return total


@triton.jit
def _sum_within(
    total,
    values,
    inside,
    weight_ptr,
    H,
    W: tl.constexpr,
    SIZE: tl.constexpr,
    stride_h,
    stride_w,
):
    for top in range(H):
        band = zeros(total, SIZE)
        for bottom in range(top, H):
            row = _load(values + bottom * stride_h, inside, stride_w, SIZE, total.dtype)
            band = add(band, prefix_sums(row))
            weights = weight_ptr + (bottom - top) * W
            band_total = tl.zeros_like(total)
            for width in tl.static_range(1, SIZE + 1):
                same_width = tl.abs(band[width - 1])
                for end in tl.static_range(width, SIZE):
                    same_width += tl.abs(band[end] - band[end - width])
                band_total += same_width * tl.load(weights + width - 1)
            total += band_total
    return total


@triton.jit
def _sum_across(
    total,
    values,  # at the first chunk
    distance,  # from its first column to that of the last chunk
    inside,
    weight_ptr,
    H,
    W: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    stride_h,
    stride_w,
):
    for top in range(H):
        left = zeros(total, FIRST)
        right = zeros(total, LAST)
        for bottom in range(top, H):
            row = values + bottom * stride_h
            left, right = _grow(left, right, row, distance, inside, stride_w)
            weights = weight_ptr + (bottom - top) * W + distance
            band_total = tl.zeros_like(total)
            for lead in tl.static_range(1 - FIRST, LAST):
                same_width = tl.zeros_like(total)
                for start in tl.static_range(max(0, -lead), min(FIRST, LAST - lead)):
                    same_width += tl.abs(left[start] + right[start + lead])
                band_total += same_width * tl.load(weights + lead)
            total += band_total
    return total


@triton.jit
def _grow(left, right, row, distance, inside, stride_w):
    """Add a row to a band: its suffixes in the first chunk, its prefixes up to the last one."""
    FIRST: tl.constexpr = len(left)
    LAST: tl.constexpr = len(right)
    like = left[0]
    between = tl.zeros_like(like)
    for j in range(FIRST, distance):
        between += tl.load(row + j * stride_w, mask=inside, other=0.0).to(like.dtype)
    left = add(left, _suffix_sums(_load(row, inside, stride_w, FIRST, like.dtype)))
    last = _load(row + distance * stride_w, inside, stride_w, LAST, like.dtype)
    right = add(right, prefix_sums((last[0] + between,) + last[1:]))
    return left, right


@triton.jit
def _clear(like, steps, inside, H, W: tl.constexpr, stride_h, stride_w):
    for i in range(H):
        for j in range(W):
            tl.store(steps + i * stride_h + j * stride_w, tl.zeros_like(like), mask=inside)


@triton.jit
def _collect_steps_within(
    like, values, steps, inside, weight_ptr, H, W: tl.constexpr, CHUNK: tl.constexpr,
    stride_h, stride_w,
):  # fmt: skip
    """Add the steps of every open rectangle that starts and ends in one chunk."""
    REST: tl.constexpr = W % CHUNK
    for first in range(0, W - REST, CHUNK):
        _steps_within(
            like, values, steps, first, inside, weight_ptr, H, W, CHUNK, stride_h, stride_w
        )
    if REST > 0:
        _steps_within(
            like, values, steps, W - REST, inside, weight_ptr, H, W, REST, stride_h, stride_w
        )


@triton.jit
def _collect_steps_across(
    like, values, steps, inside, weight_ptr, H, W: tl.constexpr, CHUNK: tl.constexpr,
    stride_h, stride_w,
):  # fmt: skip
    """Add the steps of every open rectangle that starts in one chunk and ends in a later one."""
    REST: tl.constexpr = W % CHUNK
    for first in range(0, W - REST, CHUNK):
        if W // CHUNK > 1:
            for last in range(first + CHUNK, W - REST, CHUNK):
                _steps_across(
                    like, values, steps, first, last, inside, weight_ptr, H, W, CHUNK, CHUNK,
                    stride_h, stride_w,
                )  # fmt: skip
        if REST > 0:
            _steps_across(
                like, values, steps, first, W - REST, inside, weight_ptr, H, W, CHUNK, REST,
                stride_h, stride_w,
            )  # fmt: skip


@triton.jit
def _steps_within(
    like,
    values,
    steps,
    start,
    inside,
    weight_ptr,
    H,
    W: tl.constexpr,
    SIZE: tl.constexpr,
    stride_h,
    stride_w,
):
    """Rectangles that start and end in one chunk. `running` is as in columns.column_gates."""
    values += start * stride_w
    steps += start * stride_w
    started = zeros(like, SIZE + 1)
    for top in range(H):
        band = zeros(like, SIZE)
        running = zeros(like, SIZE + 1)
        for bottom in range(top, H):
            row = _load(values + bottom * stride_h, inside, stride_w, SIZE, like.dtype)
            band = add(band, prefix_sums(row))
            weights = _load_weights(like, weight_ptr + (bottom - top) * W, SIZE)
            running = _add_steps_within(running, band, weights)
            if bottom + 1 < H:
                row_below = steps + (bottom + 1) * stride_h
                _add_to_row(row_below, running, -1.0, inside, W - start, stride_w)
        started = add(started, running)
        _add_to_row(steps + top * stride_h, started, 1.0, inside, W - start, stride_w)


@triton.jit
def _load_weights(like, ptr, SIZE: tl.constexpr):
    out = ()
    for j in tl.static_range(SIZE):
        out = out + (tl.zeros_like(like) + tl.load(ptr + j),)
    return out


@triton.jit
def _add_to_row(ptr, x, sign: tl.constexpr, inside, room, stride_w):
    """Add sign * x to the row at ptr; the last number is a step behind the map if no room is."""
    LAST: tl.constexpr = len(x) - 1
    _add_to(ptr, x[:LAST], sign, inside, stride_w)
    if room > LAST:
        _add_to(ptr + LAST * stride_w, x[LAST:], sign, inside, stride_w)


@triton.jit
def _add_to(ptr, x, sign: tl.constexpr, inside, stride_w):
    old = _load(ptr, inside, stride_w, len(x), x[0].dtype)
    for j in tl.static_range(len(x)):
        tl.store(ptr + j * stride_w, old[j] + sign * x[j], mask=inside)


@triton.jit
def _add_steps_within(running, band, weights):
    SIZE: tl.constexpr = len(band)
    for start in tl.static_range(SIZE):
        up = running[start]
        down = ()
        for end in tl.static_range(start + 1, SIZE + 1):
            if start == 0:
                gate = (band[end - 1] > 0).to(up.dtype)
            else:
                gate = (band[end - 1] > band[start - 1]).to(up.dtype)
            weighted = gate * weights[end - start - 1]
            up += weighted
            down = down + (running[end] - weighted,)
        running = running[:start] + (up,) + down
    return running


@triton.jit
def _steps_across(
    like,
    values,
    steps,
    start,
    last,  # first column of the last chunk
    inside,
    weight_ptr,
    H,
    W: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    stride_h,
    stride_w,
):
    """Rectangles that start in one chunk and end in a later one."""
    values += start * stride_w
    ups_started = zeros(like, FIRST)
    downs_started = zeros(like, LAST)
    for top in range(H):
        left = zeros(like, FIRST)
        right = zeros(like, LAST)
        up = zeros(like, FIRST)
        down = zeros(like, LAST)
        for bottom in range(top, H):
            row = values + bottom * stride_h
            left, right = _grow(left, right, row, last - start, inside, stride_w)
            first_width = weight_ptr + (bottom - top) * W + (last - start) - FIRST
            weights = _load_weights(like, first_width + 1, FIRST + LAST - 1)
            up, down = _add_steps_across(up, down, left, right, weights)
            if bottom + 1 < H:
                row_below = steps + (bottom + 1) * stride_h
                _add_to(row_below + start * stride_w, up, -1.0, inside, stride_w)
                behind = row_below + (last + 1) * stride_w
                _add_to_row(behind, down, 1.0, inside, W - last - 1, stride_w)
        ups_started = add(ups_started, up)
        downs_started = add(downs_started, down)
        row_top = steps + top * stride_h
        _add_to(row_top + start * stride_w, ups_started, 1.0, inside, stride_w)
        behind = row_top + (last + 1) * stride_w
        _add_to_row(behind, downs_started, -1.0, inside, W - last - 1, stride_w)


@triton.jit
def _add_steps_across(up, down, left, right, weights):
    FIRST: tl.constexpr = len(left)
    LAST: tl.constexpr = len(right)
    for start in tl.static_range(FIRST):
        ups = up[start]
        downs = ()
        limit = -left[start]
        for end in tl.static_range(LAST):
            gate = (right[end] > limit).to(ups.dtype)
            weighted = gate * weights[end - start + FIRST - 1]
            ups += weighted
            downs = downs + (down[end] + weighted,)
        up = up[:start] + (ups,) + up[start + 1 :]
        down = downs
    return up, down


@triton.jit
def _accumulate_steps(
    total, values, steps, gates, inside, H, W: tl.constexpr, CHUNK: tl.constexpr,
    stride_h, stride_w, scale_gate,
):  # fmt: skip
    """Sum the steps along W into the gate map; return the sum over positions of gate * value."""
    REST: tl.constexpr = W % CHUNK
    for i in range(H):
        carry = tl.zeros_like(total)
        for first in range(0, W - REST, CHUNK):
            offset = i * stride_h + first * stride_w
            total, carry = _accumulate_row(
                total, carry, values + offset, steps + offset, gates + offset, inside, stride_w,
                CHUNK, scale_gate,
            )  # fmt: skip
        if REST > 0:
            offset = i * stride_h + (W - REST) * stride_w
            total, carry = _accumulate_row(
                total, carry, values + offset, steps + offset, gates + offset, inside, stride_w,
                REST, scale_gate,
            )  # fmt: skip
    return total


@triton.jit
def _accumulate_row(
    total, carry, values, steps, gates, inside, stride_w, SIZE: tl.constexpr, scale_gate
):  # fmt: skip
    row = prefix_sums(_load(steps, inside, stride_w, SIZE, total.dtype))
    value = _load(values, inside, stride_w, SIZE, total.dtype)
    gate = ()
    for j in tl.static_range(SIZE):
        gate = gate + ((row[j] + carry) * scale_gate,)
        total = tl.fma(gate[j], value[j], total)
    _store(gates, gate, inside, stride_w)
    return total, carry + row[SIZE - 1]


def pool_large_map(
    projection: Tensor, pooled: Tensor, gate_map: Tensor | None, kernel_sizes: KernelSizes | None
) -> None:
    """Write (N, D) and, if given, the gate map of a contiguous projection (N, H, W, D)."""
    n, _, _, d = projection.shape
    transposed, height, width, kernel_sizes = orientation(*projection.shape[1:3], kernel_sizes)
    stride_h, stride_w = (d, height * d) if transposed else (width * d, d)
    summed_in = torch.float64 if projection.dtype == torch.float64 else torch.float32
    weights, position_weights, rectangles = weight_tables(
        height, width, kernel_sizes, projection.device, summed_in
    )
    steps = gate_map
    if gate_map is not None and gate_map.dtype != summed_in:
        steps = torch.empty_like(gate_map, dtype=summed_in)
    whole = chunk(width, gate_map is not None) == width
    for within, across, finish in _WHOLE if whole or gate_map is None else _PARTS:
        large_map_kernel[(triton.cdiv(n * d, COLUMNS),)](
            projection,
            pooled,
            gate_map,
            steps,
            weights,
            position_weights,
            n * d,
            d,
            height,
            height * width * d,
            stride_h,
            rectangles,
            stride_w=stride_w,
            W=width,
            CHUNK=chunk(width, gate_map is not None),
            GATE=gate_map is not None,
            WITHIN=within,
            ACROSS=across,
            FINISH=finish,
            DTYPE=accumulation(projection.dtype),
            BLOCK=COLUMNS,
            **options(projection, COLUMNS),
        )


# What each launch of the large kernel does: rectangles within chunks, across chunks, the rest.
_WHOLE = ((True, False, True),)
_PARTS = ((True, False, False), (False, True, False), (False, False, True))
