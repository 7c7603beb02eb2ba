"""Rectangle pooling of maps whose columns fit in registers, as behind the one-launch product."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lca_fused.backends.triton_gpu.autotune import best
from lca_fused.backends.triton_gpu.dispatch import (
    Tile,
    pooling_candidates,
    pooling_tile,
    tile_key,
)
from lca_fused.backends.triton_gpu.launch import accumulation, gpu_of, options
from lca_fused.backends.triton_gpu.tables import bit_mask, orientation
from lca_fused.backends.triton_gpu.tile import pool_tile, tile_offsets
from lca_fused.rectangles import KernelSizes


@triton.jit(do_not_specialize=["N"])  # or batches of other sizes would compile it again
def small_map_kernel(
    projection_ptr,  # (N, H * W, D), contiguous
    pooled_ptr,  # (N, D)
    gate_ptr,  # (N, H * W, D), or unused
    N,
    D,
    H: tl.constexpr,
    W: tl.constexpr,
    SIZES: tl.constexpr,
    RECTANGLES: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    GATE: tl.constexpr,
    DTYPE: tl.constexpr,
    IMAGES: tl.constexpr,
    POSITIONS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Maps whose columns fit in registers."""
    feature_blocks = tl.cdiv(D, BLOCK_D)
    first_image = (tl.program_id(0) // feature_blocks) * IMAGES
    first_feature = (tl.program_id(0) % feature_blocks) * BLOCK_D
    offsets, inside = tile_offsets(
        first_image, first_feature, N, D, H, W, TRANSPOSED, IMAGES, POSITIONS, BLOCK_D
    )
    tile = tl.load(projection_ptr + offsets, mask=inside, other=0.0).to(DTYPE)
    pool_tile(
        tile,
        pooled_ptr,
        gate_ptr,
        first_image,
        first_feature,
        N,
        D,
        H,
        W,
        SIZES,
        RECTANGLES,
        TRANSPOSED,
        IMAGES,
        POSITIONS,
        GATE,
    )


def pool_small_map(
    projection: Tensor,
    pooled: Tensor,
    gate_map: Tensor | None,
    kernel_sizes: KernelSizes | None,
    tile: Tile | None = None,
) -> None:
    """Write (N, D) and, if given, the gate map of a contiguous projection (N, H, W, D).

    The tile is `dispatch`'s unless one is given.
    """
    n, _, _, d = projection.shape
    transposed, height, width, kernel_sizes = orientation(*projection.shape[1:3], kernel_sizes)
    sizes, rectangles = bit_mask(height, width, kernel_sizes)

    def launch(config: Tile) -> None:
        blocks = triton.cdiv(n, config.images) * triton.cdiv(d, config.block_d)
        small_map_kernel[(blocks,)](
            projection,
            pooled,
            gate_map,
            n,
            d,
            H=height,
            W=width,
            SIZES=sizes,
            RECTANGLES=rectangles,
            TRANSPOSED=transposed,
            GATE=gate_map is not None,
            DTYPE=accumulation(projection.dtype),
            IMAGES=config.images,
            POSITIONS=config.positions,
            BLOCK_D=config.block_d,
            **options(projection, config.threads, max_registers=config.max_registers),
        )

    if tile is None:
        gate = gate_map is not None
        default = pooling_tile(n, d, height, width, gate, gpu_of(projection))
        key = ("small map", *tile_key(n, 1, d, height, width, projection.dtype, gate))
        tile = best(key, default, pooling_candidates, launch, projection.device)
    launch(tile)
