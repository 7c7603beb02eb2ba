"""The kernels that are counted, at the shapes that are benchmarked, and a table row of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.analysis import analyze
from benchmarks.compile_only import Launch, recorded_launches
from benchmarks.disassembly import count_classes
from lca_fused.backends.triton_gpu.dispatch import in_registers, recomputes_gates
from lca_fused.backends.triton_gpu.fused import accumulate
from lca_fused.backends.triton_gpu.launch import gpu_of
from lca_fused.backends.triton_gpu.pooling import pool, projection_gradient
from lca_fused.rectangles import num_rectangles, resolve_kernel_sizes

FEATURES = 2048
# Enough for the tiles that the library takes where every multiprocessor has work.
IMAGES = 32


@dataclass(frozen=True)
class Case:
    """A call of the library: an entry point, the map, the dtype, for training or not."""

    entry: str  # "fused", "pool" or "gradient"
    height: int
    width: int
    training: bool
    dtype: torch.dtype = torch.bfloat16
    images: int = IMAGES

    @property
    def rectangles(self) -> int:
        """Rectangles of the map."""
        sizes = resolve_kernel_sizes(self.height, self.width)
        return num_rectangles(self.height, self.width, sizes)


@dataclass(frozen=True)
class Row:
    """A kernel compiled for a target; figures that cannot be had are None.

    A column is one feature of one image, H*W numbers. Per-rectangle figures are of what follows
    the matrix product, where there is one, and None for a kernel that does no rectangles.
    """

    kernel: str
    target: str
    map: str
    images: int
    dtype: str
    registers: int
    spilled_bytes: int
    shared_bytes: int
    instructions: dict[str, int]
    arithmetic_per_rectangle: float | None
    slots_per_rectangle: float | None
    slots_per_column: float | None
    cycles_per_column: float | None
    compile_seconds: float


def benchmark_cases() -> Iterator[Case]:
    """Every kernel at the benchmark shapes."""
    for training in (False, True):
        yield Case("fused", 7, 7, training)
        yield Case("fused", 7, 7, training, images=1)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        yield Case("pool", 7, 7, training=False, dtype=dtype)
    for dtype in (torch.bfloat16, torch.float16):
        yield Case("gradient", 7, 7, training=True, dtype=dtype)
    for side in (14, 28):
        for training in (False, True):
            yield Case("pool", side, side, training)
    yield Case("gradient", 14, 14, training=True)


def launches_of(case: Case, target: str) -> list[tuple[str, Launch]]:
    """Name and arguments of every launch of a call; none where the library takes another path."""
    with recorded_launches(target) as launches:
        _call(case)
    return [(_name(launch), launch) for launch in launches]


def compiled_row(case: Case, name: str, launch: Launch) -> Row:
    """Compile a launch for its target and count."""
    found = analyze(launch)
    columns = case.images * FEATURES / (launch.programs * launch.threads)  # per thread
    column = None if found.cost is None else found.cost / columns
    rectangle = None if found.pooling is None else found.pooling / (columns * case.rectangles)
    if rectangle is not None and rectangle.arithmetic < 0.5:
        rectangle = None
    return Row(
        kernel=name,
        target=launch.target,
        map=f"{case.height}x{case.width}",
        images=case.images,
        dtype=str(case.dtype).removeprefix("torch."),
        registers=found.resources.registers,
        spilled_bytes=found.resources.spilled,
        shared_bytes=found.resources.shared,
        instructions=count_classes(found.program),
        arithmetic_per_rectangle=None if rectangle is None else rectangle.arithmetic,
        slots_per_rectangle=None if rectangle is None else rectangle.slots,
        slots_per_column=None if column is None else column.slots,
        cycles_per_column=None if column is None else column.cycles,
        compile_seconds=found.compile_seconds,
    )


def _call(case: Case) -> None:
    n, side = case.images, (case.height, case.width)
    rows = torch.empty(n, *side, FEATURES, dtype=case.dtype)
    gpu = gpu_of(rows)
    if case.entry == "fused":
        kept = recomputes_gates if case.training else in_registers
        if kept(*side, case.dtype, gpu):
            weight = torch.empty(FEATURES, FEATURES, dtype=case.dtype)
            bias = torch.empty(FEATURES, dtype=case.dtype)
            accumulate(rows, weight, bias, None, case.training)
    elif case.entry == "gradient":
        projection_gradient(rows, torch.empty(n, FEATURES, dtype=case.dtype), None)
    elif not (case.training and recomputes_gates(*side, case.dtype, gpu)):  # the same as without
        pool(rows, None, case.training)


def _name(launch: Launch) -> str:
    """The kernel's name, and what it writes besides the output."""
    name = str(launch.kernel.__name__).removesuffix("_kernel")
    return name + " training" * bool(launch.arguments.get("SAVED"))
