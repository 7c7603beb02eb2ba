"""What every launch shares: its device, its compiler options, and plans of launches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
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


def aligned(tensor: Tensor) -> bool:
    """Whether the tensor's memory begins at a multiple of 16 bytes, on which kernels specialise."""
    return tensor.data_ptr() % 16 == 0


class Plan:
    """A launch but for its tensors: a kernel, its grid, and all its other arguments.

    The first call compiles the kernel, or finds it compiled; the next ones go straight to the
    driver. Triton's own way from arguments to a compiled kernel takes 20 microseconds, and small
    kernels run for six.

    Args:
        kernel: a kernel that takes tensors first, the names of which end in "_ptr".
        grid: the number of programs on up to three axes.
        arguments: all other arguments of the kernel, by name; may hold more.
        options: the compiler's options.
    """

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        arguments: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        self._kernel, self._options = kernel, options
        self._grid = (*grid, 1, 1)[:3]
        names = [name for name in kernel.arg_names if not name.endswith("_ptr")]
        self._arguments = tuple(arguments[name] for name in names)
        self._run: Callable[..., Any] | None = None

    def __call__(self, *tensors: Tensor | None) -> None:
        """Launch the kernel, on the current stream of the current device.

        Tensors must have the dtypes and the alignment of those of the first call.
        """
        if self._run is not None:
            self._run(*tensors, *self._arguments)
            return
        compiled = self._kernel[self._grid](*tensors, *self._arguments, **self._options)
        if compiled is not None:  # the interpreter compiles nothing
            self._run = compiled[self._grid]


_plans: dict[Hashable, Plan] = {}
_MOST_PLANS = 4096  # batches of ever other sizes would make ever more


def planned(key: tuple[object, ...], make: Callable[[], Plan]) -> Plan:
    """Return the plan made before for this key, or make one.

    Args:
        key: begins with a name, and holds all that the plan depends on: shapes, strides, dtypes,
            alignment, the device, switches.
        make: a function that makes the plan of a new key.
    """
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        plan = _plans[key] = make()
    return plan
