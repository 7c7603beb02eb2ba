"""One launch: projection, prefix sums, rectangles, ReLU and mean; the projection stays on chip."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lca_fused.backends.triton_gpu.autotune import best
from lca_fused.backends.triton_gpu.dispatch import (
    Tile,
    one_launch_candidates,
    one_launch_tile,
    tile_key,
)
from lca_fused.backends.triton_gpu.launch import gpu_of, on_device_of, options
from lca_fused.backends.triton_gpu.tables import bit_mask, orientation
from lca_fused.backends.triton_gpu.tile import pool_tile
from lca_fused.rectangles import KernelSizes


@triton.jit(do_not_specialize=["N"])  # or batches of other sizes would compile it again
def fused_kernel(
    rows_ptr,  # (N, H * W, C)
    weight_ptr,  # (D, C)
    bias_ptr,  # (D,), or unused
    pooled_ptr,  # (N, D)
    gate_ptr,  # (N, H * W, D), or unused
    N,
    C,
    D,
    weight_stride_d,
    weight_stride_c,
    bias_stride,
    H: tl.constexpr,
    W: tl.constexpr,
    SIZES: tl.constexpr,
    RECTANGLES: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BIAS: tl.constexpr,
    GATE: tl.constexpr,
    IMAGES: tl.constexpr,
    POSITIONS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Rows of the tile are the positions of IMAGES maps, its columns BLOCK_D features."""
    # Features first: programs that run together share their images, and all share the weight.
    feature_blocks = tl.cdiv(D, BLOCK_D)
    first_image = (tl.program_id(0) // feature_blocks) * IMAGES
    first_feature = (tl.program_id(0) % feature_blocks) * BLOCK_D

    row = tl.arange(0, IMAGES * POSITIONS)
    image = first_image + row // POSITIONS
    position = row % POSITIONS
    in_map = (image < N) & (position < H * W)
    feature = first_feature + tl.arange(0, BLOCK_D)
    in_features = feature < D
    channel = tl.arange(0, BLOCK_C)
    block_of_channels = tl.full((), BLOCK_C, tl.int64)

    place = position
    if TRANSPOSED:
        place = (position % W) * H + position // W
    row_offsets = (image.to(tl.int64) * (H * W) + place) * C
    rows_ptrs = rows_ptr + row_offsets[:, None] + channel[None, :]
    weight_ptrs = (
        weight_ptr
        + feature[None, :].to(tl.int64) * weight_stride_d
        + channel[:, None].to(tl.int64) * weight_stride_c
    )
    tile = tl.zeros((IMAGES * POSITIONS, BLOCK_D), dtype=tl.float32)
    if BIAS:
        bias = tl.load(bias_ptr + feature.to(tl.int64) * bias_stride, mask=in_features, other=0.0)
        tile += bias[None, :].to(tl.float32)
    for first_channel in range(0, C, BLOCK_C):
        in_channels = channel < C - first_channel
        x = tl.load(rows_ptrs, mask=in_map[:, None] & in_channels[None, :], other=0.0)
        weight = tl.load(weight_ptrs, mask=in_channels[:, None] & in_features[None, :], other=0.0)
        tile = tl.dot(x, weight, tile, input_precision="ieee")
        rows_ptrs += BLOCK_C
        weight_ptrs += block_of_channels * weight_stride_c
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


def accumulate(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: KernelSizes | None,
    gate: bool,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Project and pool in one launch.

    Args:
        rows: (N, H, W, C), contiguous, of a map that `dispatch.in_registers` lets pass.
        weight: (D, C), any strides, in the dtype of the rows: float32, float16 or bfloat16.
        bias: (D,) in the dtype of the rows, or None.
        kernel_sizes: (kh, kw) pairs that fit the map; None means all but 1x1.
        gate: whether the gate map is wanted.
        tile: `dispatch`'s unless one is given.

    Returns:
        (N, D) and the gate map times H * W, (N, H, W, D), or None; in the dtype of the rows.
    """
    n, height, width, c = rows.shape
    d = weight.shape[0]
    pooled = rows.new_empty(n, d)
    gate_map = rows.new_empty(n, height, width, d) if gate else None
    if n == 0:
        return pooled, gate_map
    transposed, height, width, kernel_sizes = orientation(height, width, kernel_sizes)
    sizes, rectangles = bit_mask(height, width, kernel_sizes)

    def launch(config: Tile) -> None:
        blocks = triton.cdiv(n, config.images) * triton.cdiv(d, config.block_d)
        fused_kernel[(blocks,)](
            rows,
            weight,
            bias,
            pooled,
            gate_map,
            n,
            c,
            d,
            *weight.stride(),
            0 if bias is None else bias.stride(0),
            H=height,
            W=width,
            SIZES=sizes,
            RECTANGLES=rectangles,
            TRANSPOSED=transposed,
            BIAS=bias is not None,
            GATE=gate,
            IMAGES=config.images,
            POSITIONS=config.positions,
            BLOCK_D=config.block_d,
            BLOCK_C=config.block_c,
            **options(
                rows, config.threads, stages=config.stages, max_registers=config.max_registers
            ),
        )

    with on_device_of(rows):
        if tile is None:
            default = one_launch_tile(n, d, height, width, rows.element_size(), gate, gpu_of(rows))
            key = ("fused", *tile_key(n, c, d, height, width, rows.dtype, gate))
            tile = best(key, default, one_launch_candidates, launch, rows.device)
        launch(tile)
    return pooled, gate_map
