"""What surrounds a call: a compiler, a tracer, autocast, forward-mode differentiation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

Function = TypeVar("Function", bound=Callable[..., object])


def constant(function: Function) -> Function:
    """Have torch.compile call `function` while it traces and keep the result.

    As torch.compiler.assume_constant_result, which would import the compiler with the library.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """The dtype that autocast wants where the tensor is, or None where it is off."""
    device = tensor.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):  # which raises for "meta"
        return None
    return torch.get_autocast_dtype(device)


@constant  # torch.compile does as torch.func says while it traces
def in_transform() -> bool:
    """Whether torch.func transforms this call, in torch.compile too."""
    return torch._C._are_functorch_transforms_active()


def in_forward_mode() -> bool:
    """Whether tensors may carry tangents, which are lost by what is no torch operator."""
    return getattr(forward_ad, "_current_level", -1) >= 0


def subclass_of_tensor(tensor: Tensor) -> str | None:
    """The name of the tensor's class where it is one with behaviour of its own, such as a fake."""
    kind = type(tensor)
    return None if kind in (Tensor, torch.nn.Parameter) else kind.__name__


def recorder() -> str | None:
    """Name what writes operators down to run them again on other numbers; None if nothing does.

    It sees no kernels, and keeps every number that is not a tensor as it is in this call.
    """
    if torch.compiler.is_compiling():
        return "torch.export" if _is_exporting() else None
    if torch._C._is_tracing():
        return "TorchScript's tracer (torch.jit.trace, and exporters that call it)"
    if torch.onnx.is_in_onnx_export():
        return "torch.onnx.export"
    return "make_fx" if _has_proxies() else None


def is_watched() -> bool:
    """Whether something sees every torch operator of this call, and may be a recorder."""
    if torch.compiler.is_compiling():
        return False
    return (
        torch._C._len_torch_dispatch_stack() > 0
        and any(map(_is_foreign, torch.utils._python_dispatch._get_current_dispatch_mode_stack()))
    ) or (
        torch._C._len_torch_function_stack() > 0
        and any(map(_is_foreign, torch.overrides._get_current_function_mode_stack()))
    )


@contextmanager
def not_traced() -> Iterator[None]:
    """Have TorchScript's tracer look away: sizes are numbers and may be compared."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


@constant  # Dynamo answers the question itself before torch 2.14, and always with yes
def _is_exporting() -> bool:
    return torch.compiler.is_exporting()


def _has_proxies() -> bool:
    key = torch._C._TorchDispatchModeKey.PROXY
    pre_dispatch = torch._ops._get_dispatch_mode_pre_dispatch
    return torch._C._get_dispatch_mode(key) is not None or pre_dispatch(key) is not None


def _is_foreign(mode: object) -> bool:
    """Whether a mode may record: default devices and activation checkpoints do not."""
    return not isinstance(mode, DeviceContext) and type(mode).__module__ != "torch.utils.checkpoint"
