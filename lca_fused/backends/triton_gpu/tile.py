"""A tile in matrix layout: taken apart into columns in registers, and where it lies in memory.

The tile is [IMAGES * POSITIONS, BLOCK_D]: rows are the positions of one or several maps, padded
to a power of two. As columns it is a tuple of POSITIONS tensors [IMAGES * BLOCK_D].
"""

import triton
import triton.language as tl


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
