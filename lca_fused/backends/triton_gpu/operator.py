"""LCA on the GPU as one differentiable operator, for eager mode and for torch.compile.

Eager mode calls the kernels from an autograd.Function, torch.compile sees the operators that are
registered here; both end in `_forward` and `_gradients`. Crossing the operator registry costs tens
of microseconds, which eager mode need not pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lca_fused.backends.triton_gpu.dispatch import float32_matmul_may_use_tf32, one_launch
from lca_fused.rectangles import KernelSizes


def accumulate(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_sizes: KernelSizes | None
) -> Tensor:
    """LCA of checked arguments on one device and of one dtype: (N, C, H, W) -> (N, D)."""
    wants_gradient = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, weight, bias)
    )
    if torch.compiler.is_compiling():
        sizes = None if kernel_sizes is None else [side for size in kernel_sizes for side in size]
        if wants_gradient:
            return _accumulate_with_gate(x, weight, bias, sizes)[0]
        return _accumulate(x, weight, bias, sizes)
    if wants_gradient:
        return _Accumulate.apply(x, weight, bias, kernel_sizes)
    return _forward(x, weight, bias, kernel_sizes, gate=False)[0]


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_sizes: KernelSizes | None, gate: bool
) -> tuple[Tensor, Tensor | None]:
    """Return (N, D) and, if wanted, the gate map times H * W, (N, H * W, D)."""
    # Imported here: registering the operators must not need triton.
    from lca_fused.backends.triton_gpu import fused, pooling

    n, _, height, width = x.shape
    if one_launch(n, height, width, x.dtype, float32_matmul_may_use_tf32()):
        return fused.accumulate(x, weight, bias, kernel_sizes, gate)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        projection = F.linear(x.permute(0, 2, 3, 1), weight, bias)
    return pooling.pool(projection, kernel_sizes, gate)


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_sizes: KernelSizes | None,
    ) -> Tensor:
        pooled, gate_map = _forward(x, weight, bias, kernel_sizes, gate=True)
        ctx.save_for_backward(x, weight, gate_map)
        return pooled

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gate_map = ctx.saved_tensors
        if torch.is_grad_enabled():
            # To be differentiated again: M is piecewise constant, so this product is exact.
            projected = grad_outputs[0].unsqueeze(1) * (gate_map / gate_map.shape[1])
        else:
            projected = _project_gradient_kernel(gate_map, grad_outputs[0])
        return (*_gradients(projected, x, weight, ctx.needs_input_grad), None)


def _gradients(
    projected: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias from that of the projection, (N, H * W, D)."""
    n, c, height, width = x.shape
    rows = projected.flatten(0, 1)
    grad_x = grad_weight = grad_bias = None
    if needed[0]:
        grad_x = (rows @ weight).view(n, height, width, c).permute(0, 3, 1, 2)
    if needed[1]:
        grad_weight = rows.t() @ x.permute(0, 2, 3, 1).reshape(n * height * width, c)
    if needed[2]:
        grad_bias = rows.sum(0)
    return grad_x, grad_weight, grad_bias


def _project_gradient_kernel(gate_map: Tensor, grad_pooled: Tensor) -> Tensor:
    from lca_fused.backends.triton_gpu.gradient import projection_gradient

    return projection_gradient(gate_map, grad_pooled)


def _pairs(sizes: Sequence[int] | None) -> KernelSizes | None:
    return None if sizes is None else tuple(zip(sizes[::2], sizes[1::2], strict=True))


@torch.library.custom_op("lca_fused::accumulate", mutates_args=())
def _accumulate(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_sizes: Sequence[int] | None
) -> Tensor:
    return _forward(x, weight, bias, _pairs(kernel_sizes), gate=False)[0]


@_accumulate.register_fake
def _(x: Tensor, weight: Tensor, *_others: object) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("lca_fused::accumulate_with_gate", mutates_args=())
def _accumulate_with_gate(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_sizes: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    pooled, gate_map = _forward(x, weight, bias, _pairs(kernel_sizes), gate=True)
    assert gate_map is not None
    return pooled, gate_map


@_accumulate_with_gate.register_fake
def _(x: Tensor, weight: Tensor, *_others: object) -> tuple[Tensor, Tensor]:
    n, _, height, width = x.shape
    d = weight.shape[0]
    return x.new_empty(n, d), x.new_empty(n, height * width, d)


@torch.library.custom_op("lca_fused::project_gradient", mutates_args=())
def _project_gradient(gate_map: Tensor, grad_pooled: Tensor) -> Tensor:
    return _project_gradient_kernel(gate_map, grad_pooled)


@_project_gradient.register_fake
def _(gate_map: Tensor, _grad_pooled: Tensor) -> Tensor:
    return torch.empty_like(gate_map)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, weight, output[1])


def _backward(ctx: Any, grad_pooled: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, gate_map = ctx.saved_tensors
    projected = _project_gradient(gate_map, grad_pooled)
    return (*_gradients(projected, x, weight, ctx.needs_input_grad), None)


_accumulate_with_gate.register_autograd(_backward, setup_context=_save)
