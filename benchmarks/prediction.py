"""LCA's time over the projection alone on GPUs that are not at hand: predicted, not measured.

A kernel takes the longest of issuing its instructions, the waits of a single warp, moving its bytes
through the L2 cache, and moving those to memory that do not stay there; the kernels of a call add
up. What is not counted in the kernels is assumed in this file, some of it fitted to an H200's
times (benchmarks/results/gpu_h200_kernel_times.json). `python -m benchmarks.sass` prints the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor

from benchmarks.analysis import Analysis, analyze
from benchmarks.cases import INFERENCE, TRAINING
from benchmarks.compile_only import Launch
from benchmarks.cost import Cost
from benchmarks.shapes import Shape
from benchmarks.steps import Pass, Product, Step, steps_of
from lca_fused import local_concepts_accumulation

HEADING = "Predicted, not measured"
_TARGET = "sm_90"


@dataclass(frozen=True)
class Gpu:
    """What a GPU can do.

    Attributes:
        memory_bandwidth: bytes per second.
        multiprocessors: how many; each has four sub-partitions that issue an instruction per cycle.
        clock: cycles per second under load; light work alone reaches the data sheet's 1.98 GHz.
        matrix_rate: operations per second of dense bfloat16 products.
        l2_bandwidth: bytes per second; NVIDIA states none, microbenchmarks report 5.5 to 6 TB/s.
        l2_bytes: the L2 cache's capacity.
        registers, threads, shared_bytes: what one multiprocessor holds.
    """

    name: str
    memory_bandwidth: float
    multiprocessors: int = 132
    clock: float = 1.755e9
    matrix_rate: float = 989e12
    l2_bandwidth: float = 5.5e12
    l2_bytes: float = 50e6
    registers: int = 65536
    threads: int = 2048
    shared_bytes: int = 227 << 10


# NVIDIA's data sheets, SXM modules; the two differ in their memory.
GPUS = (Gpu("H100", memory_bandwidth=3.35e12), Gpu("H200", memory_bandwidth=4.8e12))
# Measured on an H200: a large product reaches 780 TFLOP/s, and one of 49 rows takes 5 to 7 us, of
# which its bytes account for 2.
PRODUCT_EFFICIENCY = 0.79
PRODUCT_SECONDS = 4e-6
# Measured there too: torch's sum over rows, from 5 us for 49 of them to 31 for 12,544.
SUM_SECONDS, SUM_BANDWIDTH = 5e-6, 2e12
# Assumed: what any other kernel takes besides, to start, to fill the GPU and to drain.
KERNEL_SECONDS = 2e-6
# Fitted: what one warp waits for a load, on average, as several are on their way at a time.
LOAD_CYCLES = 50
_SUBPARTITIONS = 4


@dataclass(frozen=True)
class Prediction:
    """A row of the table: a shape, bfloat16 and channels_last, on a GPU.

    Seconds of LCA and the ratio are None where it is not known how often a kernel's loops run.
    """

    gpu: str
    shape: str
    mode: str
    floor_seconds: float
    lca_seconds: float | None
    ratio: float | None


class UnknownTimeError(Exception):
    """It is not known how often the loops of a kernel run."""


def predict(shapes: Sequence[Shape]) -> list[Prediction]:
    """Compile what the shapes launch and predict their times on every GPU."""
    rows = []
    for shape in shapes:
        for mode in (INFERENCE, TRAINING):
            floor, lca = (_kernels(call) for call in calls(shape, mode == TRAINING))
            rows += [_prediction(gpu, shape, mode, floor, lca) for gpu in GPUS]
    return rows


def markdown(rows: Sequence[Prediction]) -> str:
    """The heading, what was assumed, and a table."""
    lines = [
        [
            *(row.shape, row.mode, row.gpu),
            *(_micro(row.floor_seconds), _micro(row.lca_seconds)),
            "-" if row.ratio is None else f"{row.ratio:.2f}",
        ]
        for row in rows
    ]
    headers = ["shape", "mode", "GPU", "projection, us", "LCA, us", "ratio"]
    table = tabulate(lines, headers, tablefmt="github", disable_numparse=True)
    gpu = GPUS[0]
    return (
        f"**{HEADING}**: bfloat16, channels_last; {gpu.multiprocessors} multiprocessors at "
        f"{gpu.clock / 1e9:g} GHz, products at {PRODUCT_EFFICIENCY * gpu.matrix_rate / 1e12:.0f} "
        f"TFLOP/s, memory at {' and '.join(f'{g.memory_bandwidth / 1e12:g}' for g in GPUS)} TB/s, "
        f"L2 at {gpu.l2_bandwidth / 1e12:g} TB/s, {1e6 * PRODUCT_SECONDS:g} us per product, "
        f"{1e6 * SUM_SECONDS:g} per sum and {1e6 * KERNEL_SECONDS:g} per other kernel besides, "
        f"{LOAD_CYCLES} cycles per load of a warp\n\n{table}"
    )


def calls(shape: Shape, training: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    """The projection alone, on rows laid out for it, and LCA; both for `steps.steps_of`."""

    def leaf(*size: int) -> Tensor:
        layout = torch.channels_last if len(size) == 4 else torch.contiguous_format
        empty = torch.empty(*size, dtype=torch.bfloat16, memory_format=layout)
        return empty.requires_grad_()

    weight, bias = leaf(shape.d, shape.c), leaf(shape.d)
    rows = leaf(shape.n * shape.height * shape.width, shape.c)
    x = leaf(shape.n, shape.c, shape.height, shape.width)
    lca = partial(local_concepts_accumulation, x, weight, bias, backend="triton")
    return (
        partial(_run, partial(F.linear, rows, weight, bias), (rows, weight, bias), training),
        partial(_run, lca, (x, weight, bias), training),
    )


def step_seconds(step: Product | Pass | Analysis, gpu: Gpu) -> float:
    """Time of one kernel, its start and end among it.

    Raises:
        UnknownTimeError: it is not known how often the kernel's loops run.
    """
    if isinstance(step, Pass) and step.sums:
        return SUM_SECONDS + step.bytes / SUM_BANDWIDTH
    if isinstance(step, Pass):
        return KERNEL_SECONDS + step.bytes / gpu.memory_bandwidth
    if isinstance(step, Product):
        multiplying = step.flops / (PRODUCT_EFFICIENCY * gpu.matrix_rate)
        return PRODUCT_SECONDS + max(multiplying, step.bytes / gpu.memory_bandwidth)
    moving, pooling = moving_seconds(step, gpu), issuing_seconds(step, step.pooling, gpu)
    if not step.multiplies:
        return KERNEL_SECONDS + max(moving, pooling)
    # First operands come in, and are multiplied meanwhile; nothing comes in while it pools.
    whole = issuing_seconds(step, step.cost, gpu)
    return KERNEL_SECONDS + max(moving, whole - pooling) + pooling


def issuing_seconds(kernel: Analysis, cost: Cost | None, gpu: Gpu) -> float:
    """Time for which a part of its instructions keeps the sub-partitions, or one warp, busy."""
    if cost is None or cost.cycles is None:
        raise UnknownTimeError
    warps = kernel.launch.programs * kernel.launch.warps
    subpartitions = gpu.multiprocessors * _SUBPARTITIONS
    rounds = math.ceil(warps / subpartitions)
    at_a_time = resident_programs(kernel, gpu) * kernel.launch.warps / subpartitions
    one_warp = cost.cycles + LOAD_CYCLES * cost.loads
    return max(rounds * cost.busy, math.ceil(rounds / at_a_time) * one_warp) / gpu.clock


def moving_seconds(kernel: Analysis, gpu: Gpu) -> float:
    """Time to move its bytes through the L2 cache, and those to memory that do not stay there."""
    if kernel.moved_bytes is None:
        raise UnknownTimeError
    moved = kernel.launch.programs * kernel.moved_bytes
    tensors = kernel.launch.tensor_bytes
    # What the programs that run at a time go through again and again, if it fits, stays in L2.
    working_set = tensors * min(1.0, resident_programs(kernel, gpu) / kernel.launch.programs)
    missed = max(0.0, 1 - gpu.l2_bytes / working_set) * moved
    return max(moved / gpu.l2_bandwidth, max(tensors, missed) / gpu.memory_bandwidth)


def resident_programs(kernel: Analysis, gpu: Gpu) -> int:
    """Programs that run at a time, as registers, threads and shared memory allow."""
    threads, used = kernel.launch.threads, kernel.resources
    by_registers = gpu.registers // (used.registers * threads)
    by_shared_memory = gpu.shared_bytes // max(1, used.shared)
    fitting = min(by_registers, by_shared_memory, gpu.threads // threads)
    return gpu.multiprocessors * max(1, fitting)


def _run(call: Callable[[], Tensor], leaves: Sequence[Tensor], training: bool) -> None:
    with torch.set_grad_enabled(training):
        output = call()
    if training:
        torch.autograd.grad(output, leaves, torch.empty_like(output))


def _kernels(call: Callable[[], object]) -> list[Product | Pass | Analysis]:
    steps: list[Step] = steps_of(call, _TARGET)
    return [analyze(step) if isinstance(step, Launch) else step for step in steps]


def _prediction(
    gpu: Gpu,
    shape: Shape,
    mode: str,
    floor: Sequence[Product | Pass | Analysis],
    lca: Sequence[Product | Pass | Analysis],
) -> Prediction:
    alone = sum(step_seconds(step, gpu) for step in floor)
    try:
        whole = sum(step_seconds(step, gpu) for step in lca)
    except UnknownTimeError:
        return Prediction(gpu.name, str(shape), mode, alone, None, None)
    return Prediction(gpu.name, str(shape), mode, alone, whole, whole / alone)


def _micro(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1e6 * seconds:.1f}" if seconds < 1e-5 else f"{1e6 * seconds:.0f}"
