"""Compile the kernels a call would launch, for any GPU, on a machine that has none.

The library's own functions are called on CPU tensors while Triton's launcher is replaced by one
that only takes notes, so what is compiled is what would run: the same arguments, tile and options.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction

from lca_fused.backends.triton_gpu import launch as library_launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_86": GPUTarget("cuda", 86, 32),
    "sm_89": GPUTarget("cuda", 89, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_GPUS = {
    "sm_80": library_launch.Gpu(32, 80, shared_memory=163 << 10),
    "sm_86": library_launch.Gpu(32, 86, shared_memory=99 << 10),
    "sm_89": library_launch.Gpu(32, 89, shared_memory=99 << 10),
    "sm_90": library_launch.HOPPER,
    "sm_100": library_launch.Gpu(32, 100, shared_memory=227 << 10),
    "sm_120": library_launch.Gpu(32, 120, shared_memory=99 << 10),
    "gfx942": library_launch.Gpu(64, None, shared_memory=64 << 10),
}
_POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
}


@dataclass(frozen=True)
class Launch:
    """One launch as it was asked for: kernel, arguments by name, compiler options, programs."""

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, Any]
    target: str
    grid: tuple[int, ...] = (1,)

    @property
    def warps(self) -> int:
        """Warps of a program."""
        return int(self.options["num_warps"])

    @property
    def threads(self) -> int:
        """Threads of a program."""
        return self.warps * TARGETS[self.target].warp_size

    @property
    def programs(self) -> int:
        """Programs of the grid."""
        return prod(self.grid)

    @property
    def tensor_bytes(self) -> int:
        """Size of the tensors among the arguments, each counted once."""
        tensors = {id(value): value for value in self.arguments.values() if torch.is_tensor(value)}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@dataclass(frozen=True)
class Compiled:
    """A kernel compiled for a target, and the CPU time that took with nothing cached."""

    binary: Any
    seconds: float


_compiled: dict[tuple[str, str, str], Compiled] = {}


@contextmanager
def recorded_launches(target: str) -> Iterator[list[Launch]]:
    """Collect what is launched for a target, one of TARGETS, instead of running it."""
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        raise RuntimeError(
            "TRITON_INTERPRET=1 replaces the compiler by an interpreter; unset it to compile"
        )
    launches: list[Launch] = []

    def record(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:  # noqa: ARG001
        arguments = dict(zip(kernel.arg_names, args, strict=False))
        arguments.update((name, kwargs.pop(name)) for name in kernel.arg_names if name in kwargs)
        programs = grid(arguments) if callable(grid) else grid
        launches.append(Launch(kernel, arguments, kwargs, target, tuple(programs)))
        return mock.MagicMock()  # for a caller that keeps and launches compiled kernels

    with (
        # Configurations that do not run cannot be timed, and no such choice must be stored.
        mock.patch.dict(os.environ, LCA_FUSED_AUTOTUNE="0"),
        mock.patch.object(JITFunction, "run", record),
        mock.patch.object(library_launch, "_gpu", return_value=_GPUS[target]),
        mock.patch.dict(library_launch._plans, clear=True),
    ):
        yield launches


def compile_launch(launch: Launch) -> Compiled:
    """Compile for the launch's target; a kernel that was compiled here before is not again."""
    gpu = TARGETS[launch.target]
    source = _source(launch, gpu)
    key = (source.hash(), launch.target, str(sorted(launch.options.items())))
    if key not in _compiled:
        _compiled[key] = _compile(source, gpu, launch.options)
    return _compiled[key]


def _compile(source: ASTSource, gpu: GPUTarget, options: dict[str, Any]) -> Compiled:
    with (
        tempfile.TemporaryDirectory() as cache,
        mock.patch.dict(os.environ, TRITON_CACHE_DIR=cache),
    ):
        start = _cpu_seconds()
        binary = triton.compile(source, target=gpu, options=dict(options))
        return Compiled(binary, _cpu_seconds() - start)


def _cpu_seconds() -> float:
    """CPU time of this process and of those it waited for, such as the assembler."""
    return sum(os.times()[:4])


def _source(launch: Launch, gpu: GPUTarget) -> ASTSource:
    """Specialise the kernel on its arguments, as Triton's launcher does."""
    backend = make_backend(gpu)
    signature: dict[str, str] = {}
    constants: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], Any] = {}
    for parameter in launch.kernel.params:
        value = launch.arguments[parameter.name]
        place = (parameter.num,)
        signature[parameter.name] = kind = (
            "constexpr"
            if parameter.is_constexpr
            else _argument_type(value, specialized=not parameter.do_not_specialize)
        )
        if kind == "constexpr":
            constants[place] = value
        elif isinstance(value, torch.Tensor):
            described = backend.get_tensor_specialization(value, align=True)
            attributes[place] = backend.parse_attr(described)
        elif isinstance(value, int) and not parameter.do_not_specialize:
            described = backend.get_int_specialization(value, align=True)
            attributes[place] = backend.parse_attr(described)
    return ASTSource(launch.kernel, signature, constants, attributes)


def _argument_type(value: Any, *, specialized: bool) -> str:
    if isinstance(value, torch.Tensor):
        return _POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    if value is None or (value == 1 and specialized):
        return "constexpr"
    return "i32" if -(2**31) <= value < 2**31 else "i64"
