"""The kernels as operators of torch.library, which is how torch.compile sees them.

Registered by hand: `torch.library.custom_op` wraps a call in Python that takes as long as all the
rest of the call. Only the operator for training has a derivative, as nothing asks the other two
for one. `torch.library.triton_op` would show the compiler the Triton kernels themselves. But to do
so it traces their launches, whose tiles depend on the size of the batch, which must stay open, and
which go past Triton's launcher; and Numba's kernels it cannot take at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lca_fused.backends.backward import input_gradients
from lca_fused.backends.kernels import KERNELS
from lca_fused.rectangles import KernelSizes

_NAMESPACE = "lca_fused"
_INPUTS = "Tensor rows, Tensor weight, Tensor? bias, int[]? kernel_sizes, str kernels"
# Exact strides, as rows that a compiler padded would have to be copied.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)


def accumulate(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: KernelSizes | None,
    kernels: str,
    training: bool,
) -> Tensor:
    """(N, H, W, C), contiguous -> (N, D) by a registered operator, differentiable if `training`."""
    sizes = None if kernel_sizes is None else [side for size in kernel_sizes for side in size]
    operators = torch.ops.lca_fused
    if training:
        pooled, _ = operators.accumulate_and_save(rows, weight, bias, sizes, kernels)
        return pooled
    return operators.accumulate(rows, weight, bias, sizes, kernels)


def _pairs(sizes: Sequence[int] | None) -> KernelSizes | None:
    return None if sizes is None else tuple(zip(sizes[::2], sizes[1::2], strict=True))


def _accumulate(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: Sequence[int] | None,
    kernels: str,
) -> Tensor:
    pooled, _ = KERNELS[kernels].project_and_pool(
        rows.contiguous(), weight, bias, _pairs(kernel_sizes), training=False
    )
    return pooled


def _fake_accumulate(rows: Tensor, weight: Tensor, *_others: object) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[0])


def _accumulate_and_save(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: Sequence[int] | None,
    kernels: str,
) -> tuple[Tensor, Tensor]:
    pooled, saved = KERNELS[kernels].project_and_pool(
        rows.contiguous(), weight, bias, _pairs(kernel_sizes), training=True
    )
    assert saved is not None
    return pooled, saved


def _fake_accumulate_and_save(
    rows: Tensor, weight: Tensor, *_others: object
) -> tuple[Tensor, Tensor]:
    n, height, width, _ = rows.shape
    d = weight.shape[0]
    return rows.new_empty(n, d), rows.new_empty(n, height, width, d)


def _projection_gradient(
    saved: Tensor, grad_pooled: Tensor, kernel_sizes: Sequence[int] | None, kernels: str
) -> tuple[Tensor, Tensor]:
    return KERNELS[kernels].projection_gradient(
        saved.contiguous(), grad_pooled, _pairs(kernel_sizes)
    )


def _fake_projection_gradient(
    saved: Tensor, grad_pooled: Tensor, *_others: object
) -> tuple[Tensor, Tensor]:
    summed_in = torch.promote_types(saved.dtype, torch.float32)
    return saved.new_empty(saved.shape), saved.new_empty(grad_pooled.shape, dtype=summed_in)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    rows, weight, _, ctx.kernel_sizes, ctx.kernels = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(rows, weight, output[1])


def _backward(ctx: Any, grad_pooled: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    gradient = partial(
        torch.ops.lca_fused.projection_gradient, kernel_sizes=ctx.kernel_sizes, kernels=ctx.kernels
    )
    rows, weight, saved = ctx.saved_tensors
    needed = ctx.needs_input_grad
    return (*input_gradients(gradient, grad_pooled, rows, weight, saved, needed), None, None)


def _register() -> torch.library.Library:
    library = torch.library.Library(_NAMESPACE, "FRAGMENT")

    def define(name: str, signature: str, run: Callable[..., Any], fake: Callable[..., Any]) -> str:
        library.define(name + signature, tags=_TAGS)
        library.impl(name, run, "CompositeExplicitAutograd")
        qualified = f"{_NAMESPACE}::{name}"
        torch.library.register_fake(qualified, fake, lib=library)
        return qualified

    define("accumulate", f"({_INPUTS}) -> Tensor", _accumulate, _fake_accumulate)
    training = define(
        "accumulate_and_save",
        f"({_INPUTS}) -> (Tensor, Tensor)",
        _accumulate_and_save,
        _fake_accumulate_and_save,
    )
    define(
        "projection_gradient",
        "(Tensor saved, Tensor grad_pooled, int[]? kernel_sizes, str kernels) -> (Tensor, Tensor)",
        _projection_gradient,
        _fake_projection_gradient,
    )
    torch.library.register_autograd(training, _backward, setup_context=_save, lib=library)
    return library


# Kept beside the operators rather than here: when this module is imported anew, the library of the
# first time is let go and takes its operators with it.
_namespace = vars(torch.ops.lca_fused)
_namespace.pop("library", None)
_namespace["library"] = _register()
