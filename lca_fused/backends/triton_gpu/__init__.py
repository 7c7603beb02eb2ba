"""LCA in Triton kernels, for CUDA and ROCm GPUs.

| file | what |
|---|---|
| pooling.py | what the operator calls: one launch, or a library product and the kernels below |
| fused.py, tile.py | one launch: projection, rectangles, ReLU, mean; its tile taken apart |
| small_map.py | maps held in registers; _kernels.py and _halves.py hold the kernels |
| large_map.py | larger maps, band of rows by band of rows, and their launches |
| forward_bands.py, gate_bands.py, gate_chunks.py | the kernels of large maps |
| gradient.py | backward of large maps: gate map times dL/dy, and its sums over positions |
| rows.py | the feature map as rows: a transposing copy |
| arithmetic.py | a rectangle in four arithmetics: what it costs |
| columns.py, bands.py | rectangles of a column in registers; bands as they come from memory |
| column_access.py | loads and stores of whole columns |
| dispatch.py | which kernel serves which call, and how it is laid out |
| packed_halves.py, autotune.py | what users may switch: float16 arithmetic, tiles by timing |
| tables.py, launch.py | kernel sizes as the kernels take them; plans of launches |
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lca_fused.backends.tracing import constant, subclass_of_tensor

_INSTALLED = importlib.util.find_spec("triton") is not None
# Triton's interpreter runs kernels on the CPU, one Python call per operation: for tests.
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_KERNELS = {"to_rows": "rows", "project_and_pool": "pooling", "projection_gradient": "pooling"}


def __getattr__(name: str) -> Any:
    """Import the kernels when they are first asked for, as importing this must not need triton."""
    if name not in _KERNELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    kernels = getattr(importlib.import_module(f"{__name__}.{_KERNELS[name]}"), name)
    globals()[name] = kernels
    return kernels


def unavailable(x: Tensor) -> str | None:
    """Why this backend cannot serve x, or None where it can."""
    if not _INSTALLED:
        return "the package triton is not installed"
    if x.dtype not in _DTYPES:
        return f"x has dtype {x.dtype}, the kernels take float64, float32, float16 or bfloat16"
    if x.device.type == "cpu" and _INTERPRETED:
        return _unusable(None)
    if x.device.type != "cuda":
        return f"x is on {x.device}, the kernels run on CUDA and ROCm GPUs"
    if not torch.compiler.is_compiling() and (kind := subclass_of_tensor(x)) is not None:
        return f"x is a {kind}, the kernels take plain tensors"
    return _unusable(x.device.index)


@constant
def _unusable(index: int | None) -> str | None:
    if torch.version.hip is None and not _INTERPRETED and (reason := _too_old(index)) is not None:
        return reason
    return _toolchain_failure()


@cache
def _too_old(index: int | None) -> str | None:
    major, minor = torch.cuda.get_device_capability(index)
    if major < 8:
        return f"the GPU has compute capability {major}.{minor}, the kernels need 8.0"
    return None


@cache
def _toolchain_failure() -> str | None:
    """Why Triton cannot compile the kernels or launch them here; warns of it, once."""
    reason = no_compiler() or (None if _INTERPRETED else _driver_failure())
    if reason is not None:
        warnings.warn(
            f"LCA has no kernels here, and torch operators are slower: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return reason


def no_compiler() -> str | None:
    """Why no kernel can be compiled here, for any target, or None where they can."""
    if not _INSTALLED:
        return "the package triton is not installed; on Linux, pip install triton"
    try:
        import triton
    except ImportError as error:  # before 3.3 it needs setuptools and does not say so to pip
        return f"triton cannot be imported ({error}); install what it asks for"
    if hasattr(triton, "constexpr_function"):  # forks number their versions otherwise
        return None
    return (
        f"triton {triton.__version__} is installed and the kernels are written in the language of "
        "3.5, which torch 2.9 brings; install a newer torch"
    )


def _driver_failure() -> str | None:
    """Have Triton make its driver, for which it needs a C compiler and Python's headers."""
    from triton.runtime import driver

    try:
        driver.active.utils  # noqa: B018, which makes it
    except Exception as error:  # from a compiler, a linker or a loader: whatever fails, no driver
        return (
            f"triton cannot make its driver ({type(error).__name__}: {error}), for which it needs "
            "a C compiler (gcc, clang, or one in CC) and Python's headers"
        )
    return None
