"""From a tile in matrix layout to columns in registers, and back.

The tile is [IMAGES * POSITIONS, BLOCK_D]: rows are the positions of one or several maps, padded
to a power of two. As columns it is a tuple of POSITIONS tensors [IMAGES * BLOCK_D].
"""

import triton
import triton.language as tl

from lca_fused.backends.triton_gpu.columns import (
    column_gates,
    column_sum,
    not_negative,
    scale,
    zeros,
)


@triton.constexpr_function
def log2(x):
    """The exponent of a power of two."""
    return x.bit_length() - 1


@triton.constexpr_function
def binary_shape(columns, bits):
    """[columns, 2, 2, ...]: the positions' index as `bits` dimensions of size two."""
    return (columns,) + (2,) * bits


@triton.jit
def unstack(tile, IMAGES: tl.constexpr, POSITIONS: tl.constexpr):
    """[IMAGES * POSITIONS, BLOCK_D] -> POSITIONS tensors [IMAGES * BLOCK_D]."""
    BLOCK_D: tl.constexpr = tile.shape[1]
    maps = tl.permute(tl.reshape(tile, (IMAGES, POSITIONS, BLOCK_D)), (0, 2, 1))
    parts = (tl.reshape(maps, binary_shape(IMAGES * BLOCK_D, log2(POSITIONS))),)
    for _ in tl.static_range(log2(POSITIONS)):
        even = ()
        odd = ()
        for k in tl.static_range(len(parts)):
            low, high = tl.split(parts[k])
            even = even + (low,)
            odd = odd + (high,)
        parts = even + odd
    return parts


@triton.jit
def stack(parts, IMAGES: tl.constexpr):
    """POSITIONS tensors [IMAGES * BLOCK_D] -> [IMAGES * POSITIONS, BLOCK_D].

    Pairs are joined along the outer dimension, which is kept in registers; along the inner one
    every join would go through shared memory.
    """
    POSITIONS: tl.constexpr = len(parts)
    COLUMNS: tl.constexpr = parts[0].shape[0]
    for level in tl.static_range(log2(POSITIONS)):
        pairs = ()
        for k in tl.static_range(len(parts) // 2):
            pair = tl.permute(tl.join(parts[2 * k], parts[2 * k + 1]), (1, 0))
            pairs = pairs + (tl.reshape(pair, (COLUMNS * 2 ** (level + 1),)),)
        parts = pairs
    maps = tl.reshape(parts[0], (POSITIONS, IMAGES, COLUMNS // IMAGES))
    return tl.reshape(tl.permute(maps, (1, 0, 2)), (IMAGES * POSITIONS, COLUMNS // IMAGES))


@triton.jit
def round_to(x, DTYPE: tl.constexpr):
    """Every tensor of a tuple in another dtype."""
    out = ()
    for j in tl.static_range(len(x)):
        out = out + (x[j].to(DTYPE),)
    return out


@triton.jit
def pool_tile(
    tile,  # [IMAGES * POSITIONS, BLOCK_D] in the dtype of accumulation
    pooled_ptr,  # (N, D)
    gate_ptr,  # (N, H * W, D), or unused
    first_image,
    first_feature,
    N,
    D,
    H: tl.constexpr,
    W: tl.constexpr,
    SIZES: tl.constexpr,
    RECTANGLES: tl.constexpr,
    TRANSPOSED: tl.constexpr,  # whether H and W are those of a map that lies transposed in memory
    IMAGES: tl.constexpr,
    POSITIONS: tl.constexpr,
    GATE: tl.constexpr,
):
    """Pool the rectangles of a projected tile; write (N, D), and the gate map if GATE."""
    BLOCK_D: tl.constexpr = tile.shape[1]
    column = tl.arange(0, IMAGES * BLOCK_D)
    image = first_image + column // BLOCK_D
    feature = first_feature + column % BLOCK_D
    pooled_ptrs = pooled_ptr + image.to(tl.int64) * D + feature
    inside = (image < N) & (feature < D)
    column_values = unstack(tile, IMAGES, POSITIONS)
    if not GATE:
        total = column_sum(column_values, H, W, SIZES)
        tl.store(pooled_ptrs, not_negative(total * (0.5 / RECTANGLES)), mask=inside)
    else:
        total, gates = column_gates(column_values, H, W, SIZES)
        tl.store(pooled_ptrs, not_negative(total * (1.0 / RECTANGLES)), mask=inside)
        gates = gates + zeros(total, POSITIONS - H * W)
        # Runs once. What a `while` carries is opaque to the compiler's layout analysis, which
        # would otherwise walk the whole column back for each of the joins: half the compile time.
        pending = first_image >= 0
        while pending:
            gates = scale(gates, H * W / RECTANGLES)
            _store_gates(
                gates,
                gate_ptr,
                first_image,
                first_feature,
                N,
                D,
                H,
                W,
                TRANSPOSED,
                IMAGES,
                POSITIONS,
            )
            pending = first_image < 0


@triton.jit
def _store_gates(
    gates,
    gate_ptr,
    first_image,
    first_feature,
    N,
    D,
    H: tl.constexpr,
    W: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    IMAGES: tl.constexpr,
    POSITIONS: tl.constexpr,
):
    tile = stack(round_to(gates, gate_ptr.dtype.element_ty), IMAGES)
    offsets, inside = tile_offsets(
        first_image, first_feature, N, D, H, W, TRANSPOSED, IMAGES, POSITIONS, tile.shape[1]
    )
    tl.store(gate_ptr + offsets, tile, mask=inside)


@triton.jit
def tile_offsets(
    first_image,
    first_feature,
    N,
    D,
    H: tl.constexpr,
    W: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    IMAGES: tl.constexpr,
    POSITIONS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Offsets of a tile in a contiguous (N, H * W, D) tensor, and which of them are inside."""
    row = tl.arange(0, IMAGES * POSITIONS)
    image = first_image + row // POSITIONS
    position = row % POSITIONS
    feature = first_feature + tl.arange(0, BLOCK_D)
    place = position
    if TRANSPOSED:
        place = (position % W) * H + position // W
    offsets = (image.to(tl.int64) * (H * W) + place)[:, None] * D + feature[None, :]
    inside = ((image < N) & (position < H * W))[:, None] & (feature < D)[None, :]
    return offsets, inside
