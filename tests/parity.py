"""Outputs and all gradients against the reference, and the tensors the comparisons draw from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from reference.lca import lca_reference

KernelSizes = Iterable[tuple[int, int]] | None
Function = Callable[..., Tensor]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """‖actual - expected‖ / ‖expected‖ in float64, or ‖actual‖ where `expected` is zero."""
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    norm = expected.norm().item()
    return (actual - expected).norm().item() / (norm or 1.0)


def with_gradients(
    function: Function, inputs: dict[str, Tensor | None], grad_output: Tensor
) -> dict[str, Tensor]:
    """Return what `function(**inputs)` returns as "output", and a gradient for every input."""
    leaves = {name: t.detach().requires_grad_() for name, t in inputs.items() if t is not None}
    output = function(**leaves)
    gradients = torch.autograd.grad(output, list(leaves.values()), grad_output)
    return {"output": output.detach(), **dict(zip(leaves, gradients, strict=True))}


def errors(
    function: Function,
    inputs: dict[str, Tensor | None],
    grad_output: Tensor,
    kernel_sizes: KernelSizes = None,
    oracle_dtype: torch.dtype = torch.float64,
) -> dict[str, float]:
    """Relative errors of `function` against the reference, of its output and every gradient."""

    def oracle(**leaves: Tensor) -> Tensor:
        return lca_reference(**leaves, kernel_sizes=kernel_sizes)

    actual = with_gradients(function, inputs, grad_output)
    copies = {
        name: None if t is None else t.to(oracle_dtype).clone(memory_format=torch.contiguous_format)
        for name, t in inputs.items()
    }
    expected = with_gradients(oracle, copies, grad_output.to(oracle_dtype).contiguous())
    return {name: relative_error(actual[name], expected[name]) for name in expected}


def random_inputs(
    shape: tuple[int, int, int, int],
    out_features: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    bias: bool = True,
) -> dict[str, Tensor | None]:
    """Standard normal x and bias, and weights that keep a projection near unit variance."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    channels = shape[1]
    x, weight, offset = normal(*shape), normal(out_features, channels), normal(out_features)
    return {
        "x": x.to(dtype),
        "weight": (weight / channels**0.5).to(dtype),
        "bias": offset.to(dtype) if bias else None,
    }


def random_gradient(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """A gradient with respect to an output of this shape, standard normal."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _stepped(t: Tensor) -> Tensor:
    return t.repeat_interleave(2, dim=-1)[..., ::2]


def _transposed(t: Tensor) -> Tensor:
    return t.transpose(-1, -2).contiguous().transpose(-1, -2)


def _offset(t: Tensor) -> Tensor:
    return torch.cat([t.new_full((3,), 7.0), t.flatten()])[3:].view(t.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "expanded over images": lambda t: t[:1].expand_as(t),
    "expanded over channels": lambda t: t[:, :1].expand_as(t),
    "expanded over rows": lambda t: t[:, :, :1].expand_as(t),
    "stepped": _stepped,
    "transposed": _transposed,
    "offset": _offset,
}
GRADIENT_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t.contiguous(),
    "expanded over images": lambda t: t[:1].expand_as(t),
    "expanded over features": lambda t: t[:, :1].expand_as(t),
    "expanded from a scalar": lambda t: t.new_ones(()).expand_as(t),
    "stepped": _stepped,
    "transposed": _transposed,
    "offset": _offset,
}
