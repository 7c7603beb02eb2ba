"""LCA as one differentiable operator around kernels, for eager mode and for torch.compile.

Kernels come as a module with three functions: `to_rows`, `project_and_pool` and
`projection_gradient`. Eager mode calls them from autograd.Functions, torch.compile sees the
operators registered here. Crossing the operator registry costs tens of microseconds, which eager
mode need not pay.

The feature map is laid out as rows once, (N, H, W, C): the product of the forward pass reads them,
and that of the weight's gradient reads the same ones again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor

from lca_fused.backends.tracing import autocast_dtype, in_forward_mode
from lca_fused.rectangles import KernelSizes

KernelsName = Literal["triton", "numba"]


class Kernels(Protocol):
    """What a module of kernels offers; its arguments were checked and share device and dtype."""

    def to_rows(self, x: Tensor) -> Tensor:
        """(N, C, H, W), any strides -> (N, H, W, C), contiguous; a view where x is laid out so."""

    def project_and_pool(
        self,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_sizes: KernelSizes | None,
        training: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Project rows and pool their rectangles.

        Returns:
            (N, D) and, for training, what `projection_gradient` needs of the projection,
            (N, H, W, D) contiguous; both in the dtype of the rows and in memory of their own.
        """

    def projection_gradient(
        self, saved: Tensor, grad_pooled: Tensor, kernel_sizes: KernelSizes | None
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient of the projection, and its sum over the positions of each image.

        Args:
            saved: (N, H, W, D) contiguous, as `project_and_pool` returned it.
            grad_pooled: (N, D), any strides.
            kernel_sizes: those of the forward pass.

        Returns:
            (N, H, W, D) contiguous, in the dtype of `saved`; and (N, D), in the dtype of
            accumulation: float32, or float64 for float64.
        """


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
        rows = x.permute(0, 2, 3, 1).contiguous()
        sizes = None if kernel_sizes is None else [side for size in kernel_sizes for side in size]
        if wants_gradient:
            return _accumulate_and_save(rows, weight, bias, sizes, kernels)[0]
        return _accumulate(rows, weight, bias, sizes, kernels)
    if wants_gradient or in_forward_mode():  # which they refuse, rather than lose a tangent
        rows = _ToRows.apply(x, kernels)
        return _Accumulate.apply(rows, weight, bias, kernel_sizes, kernels)
    chosen = _load(kernels)
    return chosen.project_and_pool(chosen.to_rows(x), weight, bias, kernel_sizes, training=False)[0]


class _ToRows(torch.autograd.Function):
    """`Kernels.to_rows`; the gradient of x is a view of that of the rows, as in a permutation."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, kernels: KernelsName) -> Tensor:
        return _load(kernels).to_rows(x)

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
        kernels: KernelsName,
    ) -> Tensor:
        ctx.kernels, ctx.kernel_sizes = _load(kernels), kernel_sizes
        pooled, saved = ctx.kernels.project_and_pool(
            rows, weight, bias, kernel_sizes, training=True
        )
        ctx.save_for_backward(rows, weight, saved)
        return pooled

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, saved = ctx.saved_tensors
        gradient = partial(ctx.kernels.projection_gradient, kernel_sizes=ctx.kernel_sizes)
        projected, sums = _projected(gradient, saved, grad_outputs[0])
        return (*_gradients(projected, sums, rows, weight, ctx.needs_input_grad), None, None)


def _projected(
    gradient: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    saved: Tensor,
    grad_pooled: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradient of the projection and its sums over positions; itself differentiable if wanted."""
    if not torch.is_grad_enabled():
        return gradient(saved, grad_pooled)
    # The gate map is piecewise constant in the projection, so the derivative of this product is
    # exact. It is asked for times a power of two near H * W, or 16 bits would underflow.
    n, height, width, d = saved.shape
    scale = 2 ** min(14, (height * width).bit_length())
    with torch.no_grad():
        gate_map = gradient(saved, saved.new_full((n, d), scale))[0] / scale
    projected = grad_pooled[:, None, None] * gate_map
    return projected, projected.sum((1, 2), dtype=torch.promote_types(saved.dtype, torch.float32))


def _gradients(
    projected: Tensor, sums: Tensor, rows: Tensor, weight: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of rows, weight and bias from that of the projection, (N, H, W, D).

    `sums` holds the gradient's sums over positions, (N, D): they spare the bias reading it.
    """
    product = projected.flatten(0, 2)
    grad_rows = grad_weight = grad_bias = None
    if needed[0]:
        grad_rows = (product @ weight).view(rows.shape)
    if needed[1]:
        grad_weight = product.t() @ rows.flatten(0, 2)
    if needed[2]:
        grad_bias = sums.sum(0).to(projected.dtype)
    return grad_rows, grad_weight, grad_bias


def _pairs(sizes: Sequence[int] | None) -> KernelSizes | None:
    return None if sizes is None else tuple(zip(sizes[::2], sizes[1::2], strict=True))


@torch.library.custom_op("lca_fused::accumulate", mutates_args=())
def _accumulate(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: Sequence[int] | None,
    kernels: str,
) -> Tensor:
    sizes = _pairs(kernel_sizes)
    return _load(kernels).project_and_pool(rows, weight, bias, sizes, training=False)[0]


@_accumulate.register_fake
def _(rows: Tensor, weight: Tensor, *_others: object) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[0])


@torch.library.custom_op("lca_fused::accumulate_and_save", mutates_args=())
def _accumulate_and_save(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: Sequence[int] | None,
    kernels: str,
) -> tuple[Tensor, Tensor]:
    sizes = _pairs(kernel_sizes)
    pooled, saved = _load(kernels).project_and_pool(rows, weight, bias, sizes, training=True)
    assert saved is not None
    return pooled, saved


@_accumulate_and_save.register_fake
def _(rows: Tensor, weight: Tensor, *_others: object) -> tuple[Tensor, Tensor]:
    n, height, width, _ = rows.shape
    d = weight.shape[0]
    return rows.new_empty(n, d), rows.new_empty(n, height, width, d)


@torch.library.custom_op("lca_fused::projection_gradient", mutates_args=())
def _projection_gradient(
    saved: Tensor, grad_pooled: Tensor, kernel_sizes: Sequence[int] | None, kernels: str
) -> tuple[Tensor, Tensor]:
    return _load(kernels).projection_gradient(saved, grad_pooled, _pairs(kernel_sizes))


@_projection_gradient.register_fake
def _(saved: Tensor, grad_pooled: Tensor, *_others: object) -> tuple[Tensor, Tensor]:
    summed_in = torch.promote_types(saved.dtype, torch.float32)
    return saved.new_empty(saved.shape), saved.new_empty(grad_pooled.shape, dtype=summed_in)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    rows, weight, _, ctx.kernel_sizes, ctx.kernels = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(rows, weight, output[1])


def _backward(ctx: Any, grad_pooled: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    rows, weight, saved = ctx.saved_tensors
    gradient = partial(_projection_gradient, kernel_sizes=ctx.kernel_sizes, kernels=ctx.kernels)
    projected, sums = _projected(gradient, saved, grad_pooled)
    return (*_gradients(projected, sums, rows, weight, ctx.needs_input_grad), None, None)


_accumulate_and_save.register_autograd(_backward, setup_context=_save)
