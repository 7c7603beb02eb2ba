"""LCA as one differentiable operator around kernels, for eager mode and for torch.compile.

Eager mode calls the kernels from autograd.Functions, torch.compile sees the operators of
`registered`: crossing the operator registry costs microseconds that eager mode need not pay.

The feature map is laid out as rows once, (N, H, W, C): the product of the forward pass reads them,
and that of the weight's gradient reads the same ones again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lca_fused.backends import registered
from lca_fused.backends.backward import input_gradients
from lca_fused.backends.kernels import KERNELS
from lca_fused.backends.tracing import autocast_dtype, in_forward_mode
from lca_fused.rectangles import KernelSizes


def accumulate(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: KernelSizes | None,
    kernels: str,
) -> Tensor:
    """LCA of checked arguments, (N, C, H, W) -> (N, D), by the kernels named; autocast applies."""
    dtype = autocast_dtype(x)
    if dtype is not None and x.dtype != torch.float64:
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    wants_gradient = torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )
    if torch.compiler.is_compiling():
        rows = x.permute(0, 2, 3, 1).contiguous()
        return registered.accumulate(rows, weight, bias, kernel_sizes, kernels, wants_gradient)
    if wants_gradient or in_forward_mode():  # which they refuse, rather than lose a tangent
        rows = x.permute(0, 2, 3, 1)
        if not rows.is_contiguous():
            rows = _ToRows.apply(x, kernels)
        return _Accumulate.apply(rows, weight, bias, kernel_sizes, kernels)
    chosen = KERNELS[kernels]
    return chosen.project_and_pool(chosen.to_rows(x), weight, bias, kernel_sizes, training=False)[0]


class _ToRows(torch.autograd.Function):
    """`Kernels.to_rows` of a map that must be copied; its gradient is a view of the rows'."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, kernels: str) -> Tensor:
        return KERNELS[kernels].to_rows(x)

    @staticmethod
    def backward(_ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0].permute(0, 3, 1, 2), None


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_sizes: KernelSizes | None,
        kernels: str,
    ) -> Tensor:
        ctx.kernels, ctx.kernel_sizes = KERNELS[kernels], kernel_sizes
        pooled, saved = ctx.kernels.project_and_pool(
            rows, weight, bias, kernel_sizes, training=True
        )
        ctx.save_for_backward(rows, weight, saved)
        return pooled

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradient = partial(ctx.kernels.projection_gradient, kernel_sizes=ctx.kernel_sizes)
        (grad_pooled,), (rows, weight, saved) = grad_outputs, ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (*input_gradients(gradient, grad_pooled, rows, weight, saved, needed), None, None)
