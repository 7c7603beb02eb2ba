"""Which kernel serves which call, and how it is laid out on the GPU.

Every choice that measurements may change is in this file. Configurations depend on the map, the
dtype and D, never on N, so a batch of another size compiles nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch

# A column of the map must fit in the registers of a thread.
SMALL_MAP = 64
# Widest map whose bands are unrolled as a whole, without the gate map; wider ones, and those with
# it from the second width on, are cut into chunks. Registers and compile time set both.
WIDEST_WHOLE = 32
WIDEST_CHUNK = 16
# One thread a column.
COLUMNS = 128


@dataclass(frozen=True)
class Tile:
    """A program's share: `images` maps, padded to `positions` rows each, times `block_d`."""

    images: int
    positions: int
    block_d: int
    block_c: int
    stages: int
    max_registers: int | None


def one_launch(n: int, height: int, width: int, dtype: torch.dtype, tf32: bool) -> bool:
    """Whether the one-launch kernel serves the call, rather than a library matmul and pooling.

    Not measured on a GPU yet. By count, for bfloat16, C = D = 2048 and 7x7 maps: the one launch
    saves writing and reading N * 49 * D numbers and two launches, and pays with 15 of 64 rows of
    padding in its matrix product. Below some N the launches weigh more than the padding.
    """
    if height * width > SMALL_MAP:
        return False
    # Without TF32, Triton multiplies float32 outside the tensor cores; the library is faster.
    tensor_cores = dtype in (torch.float16, torch.bfloat16) or (dtype == torch.float32 and tf32)
    return tensor_cores and n * height * width <= 32 * 49


@cache
def tile(height: int, width: int, element_size: int, gate: bool) -> Tile:
    """The tile of the kernels that hold columns in registers."""
    positions = 1 << max(1, (height * width - 1).bit_length())
    return Tile(
        images=max(1, 64 // positions),
        positions=positions,
        block_d=COLUMNS,
        block_c=64 if element_size == 2 else 32,
        stages=3,
        # 128 registers let four programs of 128 threads share a multiprocessor; the gate map and
        # the largest maps need more than that.
        max_registers=128 if height * width <= 49 and not gate else None,
    )


def chunk(width: int, gate: bool) -> int:
    """Columns of a map that are unrolled together: all of them, or about equal parts."""
    if width <= (WIDEST_CHUNK if gate else WIDEST_WHOLE):
        return width
    return math.ceil(width / math.ceil(width / WIDEST_CHUNK))


def float32_matmul_may_use_tf32() -> bool:
    """Torch's own setting for float32 matrix products on this GPU."""
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)
    return bool(matmul.allow_tf32 if precision is None else precision == "tf32")
