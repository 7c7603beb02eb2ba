"""The feature map as rows: a transposing copy, (N, C, H, W) of any strides -> (N, H, W, C).

A tile is read along the positions, where NCHW maps are contiguous, and written along the channels;
between the two the compiler turns it through shared memory. It computes nothing but addresses and
moves every number once in and once out: 25.7 million numbers, 103 MB, for 256 maps of 2048
channels, 7x7, in 16 bits. A copy that reads neighbouring channels together fetches a sector of 32
bytes for each number.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lca_fused.backends.triton_gpu.launch import on_device_of, options

BLOCK_C = 64
BLOCK_P = 64
THREADS = 128


@triton.jit
def rows_kernel(
    x_ptr,  # (N, C, LENGTH / W, W), any strides
    rows_ptr,  # (N, LENGTH, C), contiguous
    C,
    LENGTH,
    W,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    ONE_LINE: tl.constexpr,  # whether W is LENGTH
    OFFSETS: tl.constexpr,  # an integer type that holds the offsets within a tile
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """One program per BLOCK_C x BLOCK_P tile of one image."""
    channel_blocks = tl.cdiv(C, BLOCK_C)
    position_blocks = tl.cdiv(LENGTH, BLOCK_P)
    block = tl.program_id(0)
    first_channel = (block % channel_blocks) * BLOCK_C
    block = block // channel_blocks
    first_position = (block % position_blocks) * BLOCK_P
    image = (block // position_blocks).to(tl.int64)

    channel = tl.arange(0, BLOCK_C)
    position = tl.arange(0, BLOCK_P)
    x_ptr += image * stride_n + first_channel.to(tl.int64) * stride_c
    rows_ptr += (image * LENGTH + first_position) * C + first_channel
    if ONE_LINE:
        x_ptr += first_position.to(tl.int64) * stride_w
        place = position.to(OFFSETS) * stride_w
    else:
        whole = first_position + position
        place = (whole // W).to(OFFSETS) * stride_h + (whole % W).to(OFFSETS) * stride_w
    read = channel[:, None].to(OFFSETS) * stride_c + place[None, :]
    written = position[None, :].to(OFFSETS) * C + channel[:, None]
    inside = (channel < C - first_channel)[:, None] & (position < LENGTH - first_position)[None, :]
    tl.store(rows_ptr + written, tl.load(x_ptr + read, mask=inside), mask=inside)


def to_rows(x: Tensor) -> Tensor:
    """(N, C, H, W), any strides -> (N, H, W, C), contiguous; a view where x is laid out so."""
    rows = x.permute(0, 2, 3, 1)
    return rows if rows.is_contiguous() else _copied(x)


def _copied(x: Tensor) -> Tensor:
    n, c, height, width = x.shape
    stride_n, stride_c, stride_h, stride_w = x.stride()
    one_line = height == 1 or stride_h == width * stride_w
    map_reach = (height - 1) * stride_h + (width - 1) * stride_w
    reach = max(BLOCK_C * stride_c + map_reach, BLOCK_P * c)
    rows = x.new_empty(n, height, width, c)
    blocks = n * -(-c // BLOCK_C) * -(-height * width // BLOCK_P)
    with on_device_of(x):
        rows_kernel[(blocks,)](
            x,
            rows,
            c,
            height * width,
            width,
            stride_n,
            stride_c,
            stride_h,
            stride_w,
            ONE_LINE=one_line,
            OFFSETS=tl.int32 if reach < 2**31 else tl.int64,
            BLOCK_C=BLOCK_C,
            BLOCK_P=BLOCK_P,
            **options(x, THREADS),
        )
    return rows
