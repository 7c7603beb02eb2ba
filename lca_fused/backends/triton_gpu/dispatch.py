"""Which kernel serves which call, and how it is laid out on the GPU.

Every choice that measurements may change is in this file. Configurations depend on the map, the
dtype and D, and on N only in whether it gives every multiprocessor a full tile: batches of many
sizes compile two variants at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import torch

from lca_fused.backends.triton_gpu.launch import Gpu

# Positions of the largest maps whose columns are held in registers: without and with the gate map,
# where the compiler manages that without spilling (compute capability 8 and 9), and elsewhere.
SMALL_MAP = 64
SMALL_MAP_WITH_GATE = 49
SMALL_MAP_ELSEWHERE = 49
SMALL_MAP_WITH_GATE_ELSEWHERE = 36
# Widest map whose bands are unrolled as a whole, without the gate map; wider ones, and those with
# it from the second width on, are cut into chunks. Registers and compile time set both.
WIDEST_WHOLE = 32
WIDEST_CHUNK = 16
# One thread a column.
COLUMNS = 128
# Of a large GPU; fewer programs than that leave some idle.
MULTIPROCESSORS = 128


@dataclass(frozen=True)
class Tile:
    """A program's share: `images` maps, padded to `positions` rows each, times `block_d`."""

    images: int
    positions: int
    block_d: int
    block_c: int
    stages: int
    max_registers: int | None


def in_registers(height: int, width: int, gate: bool, gpu: Gpu) -> bool:
    """Whether the columns of a map are held in registers, rather than walked band by band."""
    if gpu.capability is not None and 80 <= gpu.capability < 100:
        return height * width <= (SMALL_MAP_WITH_GATE if gate else SMALL_MAP)
    return height * width <= (SMALL_MAP_WITH_GATE_ELSEWHERE if gate else SMALL_MAP_ELSEWHERE)


def one_launch(
    n: int, height: int, width: int, dtype: torch.dtype, tf32: bool, gate: bool, gpu: Gpu
) -> bool:
    """Whether the one-launch kernel serves the call, rather than a library matmul and pooling.

    Not measured on a GPU yet. By count, for bfloat16, C = D = 2048 and 7x7 maps: the one launch
    saves writing and reading N * 49 * D numbers and a launch, and pays with 15 of 64 rows of
    padding in its matrix product. Below some N the launches weigh more than the padding.
    """
    # Without TF32, Triton multiplies float32 outside the tensor cores; the library is faster.
    tensor_cores = dtype in (torch.float16, torch.bfloat16) or (dtype == torch.float32 and tf32)
    few_rows = n * height * width <= 32 * 49
    return tensor_cores and few_rows and in_registers(height, width, gate, gpu)


def tile(n: int, d: int, height: int, width: int, element_size: int, gate: bool, gpu: Gpu) -> Tile:
    """The tile of the kernels that hold columns in registers."""
    few = _few_programs(n, d, height, width)
    return _tile(few, height, width, element_size, gate, gpu)


def tile_candidates(chosen: Tile) -> list[Tile]:
    """Other tiles for autotuning to try in place of the chosen one."""
    return [
        replace(chosen, images=images, block_d=block_d, block_c=block_c, stages=stages)
        for images in (chosen.images, 2 * chosen.images)
        for block_d in (32, 64, 128)
        for block_c in (chosen.block_c, 2 * chosen.block_c)
        for stages in (2, 3, 4)
    ]


def tile_key(
    n: int, c: int, d: int, height: int, width: int, dtype: torch.dtype, gate: bool
) -> tuple[object, ...]:
    """What an autotuned tile depends on: C and D by their powers of two, N as in `tile`."""
    few = _few_programs(n, d, height, width)
    return few, c.bit_length(), d.bit_length(), height, width, str(dtype), gate


def _positions(height: int, width: int) -> int:
    return 1 << max(1, (height * width - 1).bit_length())


def _few_programs(n: int, d: int, height: int, width: int) -> bool:
    images = max(1, 64 // _positions(height, width))
    return math.ceil(n / images) * math.ceil(d / COLUMNS) < MULTIPROCESSORS


@cache
def _tile(few: bool, height: int, width: int, element_size: int, gate: bool, gpu: Gpu) -> Tile:
    positions = _positions(height, width)
    return Tile(
        images=max(1, 64 // positions),
        positions=positions,
        # With few programs the weight is read by few multiprocessors: spread it over more.
        block_d=COLUMNS // 4 if few else COLUMNS,
        block_c=64 if element_size == 2 else 32,
        stages=3,
        # 128 registers let four programs of 128 threads share a multiprocessor, and on Hopper
        # nothing spills, as its matrix operands and accumulators leave room.
        max_registers=128 if gpu.capability == 90 and height * width <= 49 and not gate else None,
    )


def chunk(width: int, gate: bool) -> int:
    """Columns of a map that are unrolled together: all of them, or about equal parts."""
    if width <= (WIDEST_CHUNK if gate else WIDEST_WHOLE):
        return width
    return math.ceil(width / math.ceil(width / WIDEST_CHUNK))


def float32_matmul_may_use_tf32() -> bool:
    """Torch's own setting for float32 matrix products; only NVIDIA's tensor cores have TF32."""
    if torch.version.hip is not None:
        return False
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32 if precision is None else precision == "tf32")
