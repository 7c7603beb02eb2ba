"""Backward of rectangle pooling: the gradient of the projection is the gate map times dL/dy."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lca_fused.backends.triton_gpu.launch import accumulation, on_device_of, options


@triton.jit
def gradient_kernel(
    gate_ptr,  # (N, LENGTH, D), contiguous
    grad_pooled_ptr,  # (N, D), any strides
    grad_projection_ptr,  # (N, LENGTH, D), contiguous
    D,
    stride_n,
    stride_d,
    LENGTH: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program a BLOCK_P x BLOCK_D tile of one image."""
    feature_blocks = tl.cdiv(D, BLOCK_D)
    position_blocks = tl.cdiv(LENGTH, BLOCK_P)
    block = tl.program_id(0)
    feature = (block % feature_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    block = block // feature_blocks
    position = (block % position_blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    image = (block // position_blocks).to(tl.int64)

    grad_ptrs = grad_pooled_ptr + image * stride_n + feature.to(tl.int64) * stride_d
    grad = tl.load(grad_ptrs, mask=feature < D, other=0.0).to(DTYPE) / LENGTH
    offsets = (image * LENGTH + position)[:, None] * D + feature[None, :]
    inside = (position < LENGTH)[:, None] & (feature < D)[None, :]
    gate = tl.load(gate_ptr + offsets, mask=inside, other=0.0).to(DTYPE)
    tl.store(grad_projection_ptr + offsets, gate * grad[None, :], mask=inside)


def projection_gradient(gate_map: Tensor, grad_pooled: Tensor) -> Tensor:
    """Return the gradient of the projection, (N, LENGTH, D), in the dtype of the gate map.

    Args:
        gate_map: (N, LENGTH, D), contiguous: the gate map times LENGTH.
        grad_pooled: (N, D), any strides.
    """
    n, length, d = gate_map.shape
    gradient = torch.empty_like(gate_map)
    if gate_map.numel() == 0:
        return gradient
    block_p, block_d = 16, 128
    blocks = n * triton.cdiv(length, block_p) * triton.cdiv(d, block_d)
    with on_device_of(gate_map):
        gradient_kernel[(blocks,)](
            gate_map,
            grad_pooled,
            gradient,
            d,
            *grad_pooled.stride(),
            LENGTH=length,
            DTYPE=accumulation(gate_map.dtype),
            BLOCK_P=block_p,
            BLOCK_D=block_d,
            **options(gate_map, 128),
        )
    return gradient
