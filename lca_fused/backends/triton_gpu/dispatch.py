"""Which kernel serves which call, and how it is laid out on the GPU.

Every choice that measurements may change is in this file. Configurations depend on the map, the
dtype, C and D, and on N only in how many multiprocessors it gives work: batches of many sizes
compile three variants at most. `python -m benchmarks.dispatch` times the choices on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import torch

from lca_fused.backends.triton_gpu import packed_halves
from lca_fused.backends.triton_gpu.launch import Gpu

# Positions of the largest maps whose columns are held in registers, where nothing spills then.
SMALL_MAP = 49
SMALL_MAP_WITH_SPARE_REGISTERS = 64  # compute capability 8 and 9
SMALL_MAP_IN_FLOAT64 = 25
SMALL_MAP_WITH_GATES_ON_AMD = 25
# Widest map whose bands are unrolled as a whole, without and with the gate map; wider ones are cut
# into chunks. Registers and compile time set both.
WIDEST_WHOLE = 32
WIDEST_WHOLE_WITH_GATE = 16
WIDEST_CHUNK = 16
WIDEST_CHUNK_IN_PAIRS = 8
# Largest map of bands whose sums packed halves hold to twice the error of torch in bfloat16.
LARGEST_MAP_IN_HALVES = 28 * 28
# Programs of `COLUMNS` threads that a multiprocessor should have, to hide what loads take.
PROGRAMS_OF_BANDS = 4
PROGRAMS_OF_GATES = 2
# Threads of a program where there is work for every multiprocessor; one thread per column.
COLUMNS = 128
# Multiprocessors of a large GPU; fewer programs than that leave some idle.
MULTIPROCESSORS = 128
# Positions of a batch that the one-launch kernel takes: see `one_launch`.
ONE_LAUNCH_POSITIONS = 4 * 49
# Compute capabilities whose instructions on packed halves are as fast as those on float32.
CAPABILITIES_WITH_FAST_HALVES = (80, 90, 100)


@dataclass(frozen=True)
class Tile:
    """A program's share, and how its threads go about it.

    Attributes:
        images: maps per program.
        positions: rows per map, padded to a power of two.
        block_d: features per program.
        threads: threads per program; each holds its equal share of the columns.
        block_c: channels of one step of the matrix product; 0 where there is none.
        stages: steps whose operands are on their way to shared memory at a time.
        max_registers: the registers that a thread may use; None for the compiler's own choice.
    """

    images: int
    positions: int
    block_d: int
    threads: int
    block_c: int
    stages: int
    max_registers: int | None


@dataclass(frozen=True)
class Columns:
    """How the kernels of small maps go about the columns of a projection.

    Attributes:
        arithmetic: the name of one of the arithmetics that arithmetic.py explains.
        threads: threads per program; each holds one column, or two in halves.
    """

    arithmetic: str
    threads: int


def in_registers(height: int, width: int, dtype: torch.dtype, gpu: Gpu) -> bool:
    """Whether the columns of a map are held in registers, rather than walked band by band."""
    if dtype == torch.float64:
        return height * width <= SMALL_MAP_IN_FLOAT64
    if gpu.capability is not None and 80 <= gpu.capability < 100:
        return height * width <= SMALL_MAP_WITH_SPARE_REGISTERS
    return height * width <= SMALL_MAP


def recomputes_gates(height: int, width: int, dtype: torch.dtype, gpu: Gpu) -> bool:
    """Whether backward finds the gates again in the projection, rather than keep a gate map.

    In registers, and in packed halves, that costs fewer issue slots than a gate map costs traffic.
    Walked by bands, a pass over the rectangles costs more than the map. docs/kernels.md has the
    count.
    """
    most = SMALL_MAP_WITH_GATES_ON_AMD if gpu.capability is None else SMALL_MAP
    return height * width <= most and in_registers(height, width, dtype, gpu)


def arithmetic(dtype: torch.dtype, gpu: Gpu) -> str:
    """The arithmetic of one column per thread, for numbers of this dtype in memory."""
    if dtype == torch.float64 or gpu.capability is None:
        return "maximum"
    return "saturated" if dtype == torch.float32 else "fixed point"


def in_halves(dtype: torch.dtype, d: int, gpu: Gpu) -> bool:
    """Whether two columns are pooled at once in packed halves.

    Elsewhere a pair of halves takes as long as two float32 numbers. float16 projections keep
    more bits than halves would leave of them.
    """
    return (
        dtype == torch.bfloat16
        and d % 2 == 0
        and gpu.capability in CAPABILITIES_WITH_FAST_HALVES
        and packed_halves.allowed()
    )


def one_launch(
    n: int, height: int, width: int, dtype: torch.dtype, training: bool, gpu: Gpu
) -> bool:
    """Whether the one-launch kernel serves the call, rather than a library matmul and pooling.

    By count, for bfloat16, C = D = 2048 and 7x7 maps: the one launch saves writing and reading
    N * 49 * D numbers and a launch, some 3 us. But its programs read x and the weight anew for
    tiles of 49 rows, where a library takes tiles of 256, and pad them to 64. For N = 1, 2, 4, 8
    and 32 they fetch 21, 42, 59, 93 and 371 MB, at 5.5 TB/s from the L2 cache 4, 8, 11, 17 and
    67 us, where the library's product takes about 6, 6, 7, 8 and 25. Measured on an H200, for
    inference, the best one launch and the best product and pooling: 12.6 and 14.5 us for N = 1,
    13.7 and 15.6 for N = 4, 23.1 and 18.6 for N = 8. For training Python took longer than the
    kernels, which are not measured yet.
    """
    # Triton multiplies float32 outside the tensor cores, or in TF32 with operands that are cut off
    # rather than rounded, which biases every output: the library does better in either.
    has_16_bits = dtype in (torch.float16, torch.bfloat16)
    few_rows = n * height * width <= ONE_LAUNCH_POSITIONS
    fits = (recomputes_gates if training else in_registers)(height, width, dtype, gpu)
    return has_16_bits and few_rows and fits


@cache
def one_launch_tile(n: int, d: int, height: int, width: int, element_size: int, gpu: Gpu) -> Tile:
    """The tile of the one-launch kernel."""
    positions = _positions(height, width)
    images = _images(positions)
    block_d = _features(n, d, images)
    # Where few programs share the reading of the weight, each must have more of it on its way.
    few = block_d < COLUMNS
    block_c = (128 if few else 64) * 2 // element_size
    step_bytes = (images * positions + block_d) * block_c * element_size
    return Tile(
        images,
        positions,
        block_d,
        threads=COLUMNS,  # the matrix instructions of Hopper take four warps
        block_c=block_c,
        stages=min(5 if few else 3, _most_stages(step_bytes, gpu)),
        max_registers=_max_registers(height, width, gpu),
    )


def columns_of(n: int, d: int, dtype: torch.dtype, gpu: Gpu) -> Columns:
    """What the kernels of small maps take for a projection (N, H, W, D) of this dtype."""
    if in_halves(dtype, d, gpu):
        return Columns("halves", _features(n, d // 2, images=1))
    return Columns(arithmetic(dtype, gpu), _features(n, d, images=1))


def one_launch_candidates(chosen: Tile) -> list[Tile]:
    """Other tiles for autotuning to try in place of the chosen one."""
    tiles = [
        replace(chosen, images=factor * chosen.images, block_d=block_d, threads=threads)
        for factor, block_d, threads in (
            *((1, block_d, COLUMNS) for block_d in (16, 32, 64, 128)),
            *((2, block_d, 2 * COLUMNS) for block_d in (64, 128)),
            *((4, block_d, 4 * COLUMNS) for block_d in (64, 128)),
        )
    ]
    return [
        replace(tile, block_c=block_c, stages=stages)
        for tile in tiles
        for block_c in (64, 128)
        for stages in (3, 4, 5)
    ]


def columns_candidates(chosen: Columns) -> list[Columns]:
    """Other choices for autotuning to try in place of the chosen one."""
    return [replace(chosen, threads=threads) for threads in (32, 64, 128, 256)]


def tile_key(
    n: int, c: int, d: int, height: int, width: int, dtype: torch.dtype
) -> tuple[object, ...]:
    """What an autotuned tile depends on: C and D by their powers of two, N as in the tiles."""
    width_of_tile = _features(n, d, _images(_positions(height, width)))
    return width_of_tile, c.bit_length(), d.bit_length(), height, width, str(dtype)


def _positions(height: int, width: int) -> int:
    return 1 << max(1, (height * width - 1).bit_length())


def _images(positions: int) -> int:
    return max(1, 64 // positions)


def _features(n: int, d: int, images: int) -> int:
    """Features of a program: fewer where there would not be one for every multiprocessor."""
    programs = math.ceil(n / images) * d
    for features in (COLUMNS // 4, COLUMNS // 2):
        if programs <= features * MULTIPROCESSORS:
            return features
    return COLUMNS


def _most_stages(step_bytes: int, gpu: Gpu) -> int:
    """How many steps of the matrix product fit shared memory."""
    buffers = max(1, gpu.shared_memory // step_bytes)
    # Before Hopper's asynchronous matrix products a step's buffer is free once it is multiplied.
    frees_early = gpu.capability is None or gpu.capability < 90
    return buffers + 1 if frees_early else buffers


def _max_registers(height: int, width: int, gpu: Gpu) -> int | None:
    """With 128 registers four programs of 128 threads share a multiprocessor.

    On Hopper nothing spills then, as its matrix operands and accumulators leave room.
    """
    return 128 if gpu.capability == 90 and height * width <= 49 else None


def chunks(width: int, gate: bool, widest: int = WIDEST_CHUNK) -> list[int]:
    """Columns of a map that are unrolled together: all of them, or about equal parts."""
    if width <= (WIDEST_WHOLE_WITH_GATE if gate else WIDEST_WHOLE):
        return [width]
    count = math.ceil(width / widest)
    return [(width + place) // count for place in reversed(range(count))]


def widest_chunk(gate: bool, halves: bool, gpu: Gpu) -> int:
    """Columns that two chunks may have each.

    Blackwell's instructions on two float32 at once want them in neighbouring registers, of which
    the gates of wider chunks then need more than there are.
    """
    pairs = gpu.capability is not None and gpu.capability >= 100 and not halves
    return WIDEST_CHUNK_IN_PAIRS if gate and pairs else WIDEST_CHUNK


def splits(columns: int, height: int, gate: bool) -> int:
    """Programs that share the top rows of a column; a power of two.

    As many as give every multiprocessor enough programs, each of two top rows at least. With the
    gate map each takes memory for steps of its own, and so many registers that fewer fit.

    Args:
        columns: threads that take a column or two each, over all images and features.
        height: rows of the map, as the kernels see it.
        gate: whether the gate map is wanted.
    """
    programs = math.ceil(columns / COLUMNS)
    wanted = (PROGRAMS_OF_GATES if gate else PROGRAMS_OF_BANDS) * MULTIPROCESSORS // programs
    most = min(wanted, height // 2)
    return 1 << (most.bit_length() - 1) if most > 1 else 1


def registers_of_bands(
    width: int, gate: bool, halves: bool, dtype: torch.dtype, gpu: Gpu
) -> int | None:
    """Registers that a thread of a kernel of bands may use; None for the compiler's own choice.

    Left to itself it takes half as many and waits for every load. With 128 still four programs of
    128 threads share a multiprocessor. Microseconds on an H200 without the limit and with it, at
    14x14, N = 64, D = 2048: 140 and 113 in halves, 187 and 171 in float16, 198 and 186 in float32;
    with the gate map 226 and 215 in halves. The gates of wider maps need more: 28x28, N = 16,
    halves 1,408 without a limit and 1,340 with 255; those of float16 would spill.
    """
    if gpu.capability != 90 or dtype == torch.float64 or (gate and not halves):
        return None
    return 255 if gate and width >= WIDEST_WHOLE_WITH_GATE else 128


def bands_in_halves(height: int, width: int, d: int, dtype: torch.dtype, gpu: Gpu) -> bool:
    """Whether bands are summed in packed halves, two columns per thread."""
    return height * width <= LARGEST_MAP_IN_HALVES and in_halves(dtype, d, gpu)
