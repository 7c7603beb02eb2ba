"""What surrounds a call: a compiler, autocast, forward-mode differentiation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

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


def in_forward_mode() -> bool:
    """Whether tensors may carry tangents, which are lost by what is no torch operator."""
    return getattr(forward_ad, "_current_level", -1) >= 0


def subclass_of_tensor(tensor: Tensor) -> str | None:
    """The name of the tensor's class where it is one with behaviour of its own, such as a fake."""
    kind = type(tensor)
    return None if kind in (Tensor, torch.nn.Parameter) else kind.__name__
