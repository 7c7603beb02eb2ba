"""LCA as one differentiable operator around kernels, for eager mode and for torch.compile.

Kernels come as a module with two functions: `project_and_pool`, forward with or without the gate
map, and `projection_gradient`. Eager mode calls them from an autograd.Function, torch.compile sees
the operators registered here. Crossing the operator registry costs tens of microseconds, which
eager mode need not pay.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor

from lca_fused.backends.tracing import autocast_dtype, in_forward_mode
from lca_fused.rectangles import KernelSizes

KernelsName = Literal["triton", "numba"]


class Kernels(Protocol):
    """What a module of kernels offers; its arguments were checked and share device and dtype."""

    def project_and_pool(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_sizes: KernelSizes | None,
        gate: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """(N, C, H, W) -> (N, D) and, if wanted, the gate map times H * W, (N, H * W, D)."""

    def projection_gradient(self, gate_map: Tensor, grad_pooled: Tensor) -> Tensor:
        """(N, H * W, D) times H * W and (N, D) -> the gradient of the projection, (N, H * W, D)."""


_MODULES: dict[str, str] = {
    "triton": "lca_fused.backends.triton_gpu.project_and_pool",
    "numba": "lca_fused.backends.numba_cpu",
}


def _load(kernels: str) -> Kernels:
    # On first use: importing the library must need neither triton nor numba.
    return cast(Kernels, importlib.import_module(_MODULES[kernels]))


def accumulate(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: KernelSizes | None,
    kernels: KernelsName,
) -> Tensor:
    """LCA of checked arguments, (N, C, H, W) -> (N, D), by the kernels named; autocast applies."""
    dtype = autocast_dtype(x)
    if dtype is not None and x.dtype != torch.float64:
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    wants_gradient = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, weight, bias)
    )
    if torch.compiler.is_compiling():
        sizes = None if kernel_sizes is None else [side for size in kernel_sizes for side in size]
        if wants_gradient:
            return _accumulate_with_gate(x, weight, bias, sizes, kernels)[0]
        return _accumulate(x, weight, bias, sizes, kernels)
    if wants_gradient or in_forward_mode():  # which it refuses, rather than lose a tangent
        return _Accumulate.apply(x, weight, bias, kernel_sizes, kernels)
    return _load(kernels).project_and_pool(x, weight, bias, kernel_sizes, gate=False)[0]


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_sizes: KernelSizes | None,
        kernels: KernelsName,
    ) -> Tensor:
        ctx.kernels = _load(kernels)
        pooled, gate_map = ctx.kernels.project_and_pool(x, weight, bias, kernel_sizes, gate=True)
        ctx.save_for_backward(x, weight, gate_map)
        return pooled

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gate_map = ctx.saved_tensors
        if torch.is_grad_enabled():
            # To be differentiated again: M is piecewise constant, so this product is exact.
            projected = grad_outputs[0].unsqueeze(1) * (gate_map / gate_map.shape[1])
        else:
            projected = ctx.kernels.projection_gradient(gate_map, grad_outputs[0])
        return (*_gradients(projected, x, weight, ctx.needs_input_grad), None, None)


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


def _pairs(sizes: Sequence[int] | None) -> KernelSizes | None:
    return None if sizes is None else tuple(zip(sizes[::2], sizes[1::2], strict=True))


@torch.library.custom_op("lca_fused::accumulate", mutates_args=())
def _accumulate(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: Sequence[int] | None,
    kernels: str,
) -> Tensor:
    sizes = _pairs(kernel_sizes)
    return _load(kernels).project_and_pool(x, weight, bias, sizes, gate=False)[0]


@_accumulate.register_fake
def _(x: Tensor, weight: Tensor, *_others: object) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("lca_fused::accumulate_with_gate", mutates_args=())
def _accumulate_with_gate(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: Sequence[int] | None,
    kernels: str,
) -> tuple[Tensor, Tensor]:
    sizes = _pairs(kernel_sizes)
    pooled, gate_map = _load(kernels).project_and_pool(x, weight, bias, sizes, gate=True)
    assert gate_map is not None
    return pooled, gate_map


@_accumulate_with_gate.register_fake
def _(x: Tensor, weight: Tensor, *_others: object) -> tuple[Tensor, Tensor]:
    n, _, height, width = x.shape
    d = weight.shape[0]
    return x.new_empty(n, d), x.new_empty(n, height * width, d)


@torch.library.custom_op("lca_fused::projection_gradient", mutates_args=())
def _projection_gradient(gate_map: Tensor, grad_pooled: Tensor, kernels: str) -> Tensor:
    return _load(kernels).projection_gradient(gate_map, grad_pooled)


@_projection_gradient.register_fake
def _(gate_map: Tensor, _grad_pooled: Tensor, _kernels: str) -> Tensor:
    return torch.empty_like(gate_map)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _, _, ctx.kernels = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, weight, output[1])


def _backward(ctx: Any, grad_pooled: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, gate_map = ctx.saved_tensors
    projected = _projection_gradient(gate_map, grad_pooled, ctx.kernels)
    return (*_gradients(projected, x, weight, ctx.needs_input_grad), None, None)


_accumulate_with_gate.register_autograd(_backward, setup_context=_save)
