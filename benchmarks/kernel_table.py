"""The kernels that are counted, at the shapes that are benchmarked, and a table row of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.compile_only import Launch, compile_launch, recorded_launches
from benchmarks.disassembly import count_classes, disassemble
from benchmarks.rectangle_cost import rectangle_cost
from lca_fused.backends.triton_gpu.dispatch import in_registers
from lca_fused.backends.triton_gpu.fused import accumulate
from lca_fused.backends.triton_gpu.gradient import gate_times_gradient
from lca_fused.backends.triton_gpu.launch import gpu_of
from lca_fused.backends.triton_gpu.pooling import pool

FEATURES = 2048
# Enough for the tiles that the library takes where every multiprocessor has work.
IMAGES = 32


@dataclass(frozen=True)
class Case:
    """A call of the library: an entry point, the map, the dtype, with or without the gate map."""

    entry: str  # "fused", "pool" or "gradient"
    height: int
    width: int
    gate: bool
    dtype: torch.dtype = torch.bfloat16
    images: int = IMAGES


@dataclass(frozen=True)
class Row:
    """A kernel compiled for a target. Per-rectangle figures are None where it does none."""

    kernel: str
    target: str
    map: str
    images: int
    dtype: str
    registers: int
    spilled_bytes: int
    shared_bytes: int
    instructions: dict[str, int]
    fp32_per_rectangle: float | None
    slots_per_rectangle: float | None
    compile_seconds: float


def benchmark_cases() -> Iterator[Case]:
    """Every kernel at the benchmark shapes."""
    for gate in (False, True):
        for height, width in ((7, 7), (8, 8), (12, 5), (5, 9)):
            yield Case("fused", height, width, gate)
        yield Case("fused", 7, 7, gate, images=1)
    for gate in (False, True):
        for height, width in ((7, 7), (8, 8), (12, 5), (14, 14), (13, 13), (28, 28), (56, 56)):
            yield Case("pool", height, width, gate)
        for side in (7, 14):
            yield Case("pool", side, side, gate, torch.float32)
    for side in (7, 28):
        yield Case("gradient", side, side, gate=True)


def launches_of(case: Case, target: str) -> list[tuple[str, Launch]]:
    """Name and arguments of every launch of a call; none where the library takes another path."""
    with recorded_launches(target) as launches:
        _call(case)
    return [(_name(launch), launch) for launch in launches]


def compiled_row(case: Case, name: str, launch: Launch) -> Row:
    """Compile a launch for its target and count."""
    compiled = compile_launch(launch)
    program, resources = disassemble(compiled.binary)
    cost = rectangle_cost(launch, program)
    return Row(
        kernel=name,
        target=launch.target,
        map=f"{case.height}x{case.width}",
        images=case.images,
        dtype=str(case.dtype).removeprefix("torch."),
        registers=resources.registers,
        spilled_bytes=resources.spilled,
        shared_bytes=resources.shared,
        instructions=count_classes(program),
        fp32_per_rectangle=None if cost is None else cost.fp32,
        slots_per_rectangle=None if cost is None else cost.slots,
        compile_seconds=compiled.seconds,
    )


def _call(case: Case) -> None:
    n, height, width = case.images, case.height, case.width
    if case.entry == "fused":
        rows = torch.empty(n, height, width, FEATURES, dtype=case.dtype)
        if not in_registers(height, width, case.gate, gpu_of(rows)):
            return
        weight = torch.empty(FEATURES, FEATURES, dtype=case.dtype)
        accumulate(rows, weight, torch.empty(FEATURES, dtype=case.dtype), None, case.gate)
    elif case.entry == "pool":
        pool(torch.empty(n, height, width, FEATURES, dtype=case.dtype), None, case.gate)
    else:
        gate_map = torch.empty(n, height, width, FEATURES, dtype=case.dtype)
        gate_times_gradient(gate_map, torch.empty(n, FEATURES, dtype=case.dtype))


def _name(launch: Launch) -> str:
    """The kernel's name, "gate" with the gate map, and what part of it a launch does."""
    arguments = launch.arguments
    name = launch.kernel.__name__.removesuffix("_kernel")
    if arguments.get("GATE"):
        name += " gate"
    parts = [part for part in ("WITHIN", "ACROSS", "FINISH") if arguments.get(part)]
    if arguments.get("GATE") and len(parts) == 1:
        name += f" {parts[0].lower()}"
    return name
