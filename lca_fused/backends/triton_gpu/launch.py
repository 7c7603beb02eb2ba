"""What every launch shares: the device it runs on and the options it is compiled with."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

# Triton's interpreter runs kernels on the CPU, one Python call an operation: for tests.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the tensor's device the current one, which is where Triton launches."""
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


def options(
    tensor: Tensor, threads: int, *, stages: int = 1, max_registers: int | None = None
) -> dict[str, Any]:
    """Compiler options for programs of `threads` threads on the device of `tensor`."""
    chosen: dict[str, Any] = {
        "num_warps": max(1, threads // _warp_size(tensor.device)),
        "num_stages": stages,
        "enable_fp_fusion": True,
    }
    if max_registers is not None and torch.version.hip is None:
        chosen["maxnreg"] = max_registers
    return chosen


@cache
def _warp_size(device: torch.device) -> int:
    if device.type != "cuda":
        return 32
    return int(torch.cuda.get_device_properties(device).warp_size)
