"""What every launch shares: the device it runs on and the options it is compiled with."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the tensor's device the current one, which is where Triton launches."""
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Gpu:
    """What the choice of a kernel and its compilation depend on."""

    warp_size: int
    capability: int | None  # of NVIDIA, 90 for compute capability 9.0; None for AMD
    shared_memory: int  # bytes that a program may use


HOPPER = Gpu(warp_size=32, capability=90, shared_memory=227 << 10)
"""H100 and H200, for which the kernels were shaped."""


def gpu_of(tensor: Tensor) -> Gpu:
    """The GPU that holds the tensor; for a CPU tensor the one the kernels were shaped for."""
    return _gpu(tensor.device)


@cache
def _gpu(device: torch.device) -> Gpu:
    if device.type != "cuda":
        return HOPPER
    properties = torch.cuda.get_device_properties(device)
    nvidia = torch.version.hip is None
    capability = 10 * properties.major + properties.minor if nvidia else None
    shared_memory = getattr(properties, "shared_memory_per_block_optin", 64 << 10)
    return Gpu(properties.warp_size, capability, shared_memory)


def options(
    tensor: Tensor, threads: int, *, stages: int = 1, max_registers: int | None = None
) -> dict[str, Any]:
    """Compiler options for programs of `threads` threads on the device of `tensor`."""
    chosen: dict[str, Any] = {
        "num_warps": max(1, threads // gpu_of(tensor).warp_size),
        "num_stages": stages,
        "enable_fp_fusion": True,
    }
    if max_registers is not None:
        chosen["maxnreg"] = max_registers
    return chosen


def accumulation(dtype: torch.dtype) -> Any:
    """The dtype, as Triton names it, in which sums over numbers of this dtype are taken."""
    import triton.language as tl

    return tl.float64 if dtype == torch.float64 else tl.float32
