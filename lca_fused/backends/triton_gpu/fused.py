"""One launch: projection, prefix sums, rectangles, ReLU and mean; the projection stays on chip."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import triton
import triton.language as tl
from torch import Tensor

from lca_fused.backends.triton_gpu import autotune
from lca_fused.backends.triton_gpu.columns import scaled_prefix_sums, sum_of_rectangles
from lca_fused.backends.triton_gpu.dispatch import (
    Tile,
    arithmetic,
    one_launch_candidates,
    one_launch_tile,
    tile_key,
)
from lca_fused.backends.triton_gpu.launch import (
    Plan,
    aligned,
    gpu_of,
    on_device_of,
    options,
)
from lca_fused.backends.triton_gpu.tables import bit_mask, orientation
from lca_fused.backends.triton_gpu.tile import tile_offsets, unstack
from lca_fused.rectangles import KernelSizes


@triton.jit(do_not_specialize=["N"])  # or batches of other sizes would compile it again
def fused_kernel(
    rows_ptr,  # (N, H * W, C)
    weight_ptr,  # (D, C)
    bias_ptr,  # (D,), or unused
    pooled_ptr,  # (N, D)
    projection_ptr,  # (N, H * W, D), or unused
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
    SAVED: tl.constexpr,  # whether the projection is written, too
    ARITHMETIC: tl.constexpr,
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
    if SAVED:
        offsets, inside = tile_offsets(
            first_image, first_feature, N, D, H, W, TRANSPOSED, IMAGES, POSITIONS, BLOCK_D
        )
        tl.store(projection_ptr + offsets, tile, mask=inside)
    column = unstack(tile, IMAGES, POSITIONS)[: H * W]
    values, unit = scaled_prefix_sums(column, H, W, ARITHMETIC)
    totals = sum_of_rectangles(values, H, W, SIZES, ARITHMETIC)
    column_index = tl.arange(0, IMAGES * BLOCK_D)
    image = first_image + column_index // BLOCK_D
    feature = first_feature + column_index % BLOCK_D
    pooled_ptrs = pooled_ptr + image.to(tl.int64) * D + feature
    inside = (image < N) & (feature < D)
    tl.store(pooled_ptrs, totals[0] * (1.0 / RECTANGLES) * unit, mask=inside)


def accumulate(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: KernelSizes | None,
    training: bool,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Project and pool in one launch.

    Args:
        rows: (N, H, W, C), contiguous, of a map that `dispatch.in_registers` lets pass.
        weight: (D, C), any strides, in the dtype of the rows: float32, float16 or bfloat16.
        bias: (D,) in the dtype of the rows, or None.
        kernel_sizes: (kh, kw) pairs that fit the map; None means all but 1x1.
        training: whether the projection is wanted, too.
        tile: the tile to take; None for what `dispatch` chooses.

    Returns:
        (N, D) and the projection, (N, H, W, D), or None; in the dtype of the rows.
    """
    n, height, width, _ = rows.shape
    d = weight.shape[0]
    pooled = rows.new_empty(n, d)
    projection = rows.new_empty(n, height, width, d) if training else None
    if n == 0:
        return pooled, projection
    tensors = rows, weight, bias, pooled, projection

    def plan(tile: Tile) -> Plan:
        return _plan(tensors, kernel_sizes, tile)

    with on_device_of(rows):
        key = (
            "fused",
            rows.shape,
            weight.shape[0],
            weight.stride(),
            None if bias is None else (bias.stride(), aligned(bias)),
            rows.dtype,
            rows.device,
            aligned(rows),
            aligned(weight),
            kernel_sizes,
            training,
        )
        autotune.launch(key, tensors, plan, partial(_tile, tensors), tile)
    return pooled, projection


Tensors = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None]


def _tile(tensors: Tensors, run: Callable[[Tile], None]) -> Tile:
    """What dispatch chooses, or autotuning where it is on."""
    rows, weight, *_ = tensors
    n, height, width, c = rows.shape
    d = weight.shape[0]
    _, height, width, _ = orientation(height, width, None)
    default = one_launch_tile(n, d, height, width, rows.element_size(), gpu_of(rows))
    key = ("fused", *tile_key(n, c, d, height, width, rows.dtype), tensors[4] is not None)
    return autotune.best(key, default, one_launch_candidates, run, rows.device)


def _plan(tensors: Tensors, kernel_sizes: KernelSizes | None, tile: Tile) -> Plan:
    rows, weight, bias, _, projection = tensors
    n, height, width, c = rows.shape
    d = weight.shape[0]
    transposed, height, width, kernel_sizes = orientation(height, width, kernel_sizes)
    sizes, rectangles = bit_mask(height, width, kernel_sizes)
    arguments = {
        "N": n,
        "C": c,
        "D": d,
        "weight_stride_d": weight.stride(0),
        "weight_stride_c": weight.stride(1),
        "bias_stride": 0 if bias is None else bias.stride(0),
        "H": height,
        "W": width,
        "SIZES": sizes,
        "RECTANGLES": rectangles,
        "TRANSPOSED": transposed,
        "BIAS": bias is not None,
        "SAVED": projection is not None,
        "ARITHMETIC": arithmetic(rows.dtype, gpu_of(rows)),
        "IMAGES": tile.images,
        "POSITIONS": tile.positions,
        "BLOCK_D": tile.block_d,
        "BLOCK_C": tile.block_c,
    }
    programs = -(-n // tile.images) * -(-d // tile.block_d)
    chosen = options(rows, tile.threads, stages=tile.stages, max_registers=tile.max_registers)
    return Plan(fused_kernel, (programs,), arguments, chosen)
