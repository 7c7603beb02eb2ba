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
    sums_ptr,  # (N, D), contiguous
    D,
    stride_n,
    stride_d,
    LENGTH: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program BLOCK_D features of one image, BLOCK_P positions at a time."""
    feature_blocks = tl.cdiv(D, BLOCK_D)
    feature = (tl.program_id(0) % feature_blocks) * BLOCK_D + tl.arange(0, BLOCK_D)
    image = (tl.program_id(0) // feature_blocks).to(tl.int64)
    in_features = feature < D

    grad_ptrs = grad_pooled_ptr + image * stride_n + feature.to(tl.int64) * stride_d
    grad = tl.load(grad_ptrs, mask=in_features, other=0.0).to(DTYPE) / LENGTH
    total = tl.zeros((BLOCK_P, BLOCK_D), dtype=DTYPE)
    for first in range(0, LENGTH, BLOCK_P):
        position = first + tl.arange(0, BLOCK_P)
        offsets = (image * LENGTH + position)[:, None] * D + feature[None, :]
        inside = (position < LENGTH)[:, None] & in_features[None, :]
        product = tl.load(gate_ptr + offsets, mask=inside, other=0.0).to(DTYPE) * grad[None, :]
        tl.store(grad_projection_ptr + offsets, product, mask=inside)
        total += product
    tl.store(sums_ptr + image * D + feature, tl.sum(total, axis=0), mask=in_features)


def gate_times_gradient(gate_map: Tensor, grad_pooled: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the projection, and its sum over the positions of each image.

    Args:
        gate_map: (N, H, W, D), contiguous: the gate map times H * W.
        grad_pooled: (N, D), any strides.

    Returns:
        (N, H, W, D) in the dtype of the gate map, and (N, D) in that of accumulation.
    """
    n, height, width, d = gate_map.shape
    gradient = torch.empty_like(gate_map)
    sums = gate_map.new_empty(n, d, dtype=torch.promote_types(gate_map.dtype, torch.float32))
    if n == 0:
        return gradient, sums
    block_d = 64
    with on_device_of(gate_map):
        gradient_kernel[(n * -(-d // block_d),)](
            gate_map,
            grad_pooled,
            gradient,
            sums,
            d,
            *grad_pooled.stride(),
            LENGTH=height * width,
            DTYPE=accumulation(gate_map.dtype),
            BLOCK_P=64,
            BLOCK_D=block_d,
            **options(gate_map, 128),
        )
    return gradient, sums
