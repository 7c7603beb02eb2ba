"""FP32 instructions and issue slots a rectangle, counted in the disassembly of a launch.

Straight-line kernels: what runs behind the matrix product (everything, where there is none) over
the rectangles of the map. Kernels that loop over bands of rows: the loop that does the rectangles
of one band, with its share of the loop around it. What runs once a row of the map or once a column
is not in these figures, and is a few hundredths of the whole at 14x14 and less on larger maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.disassembly import Instruction
from benchmarks.loops import Loop, find_loops, reachable

if TYPE_CHECKING:
    from benchmarks.compile_only import Launch


@dataclass(frozen=True)
class Cost:
    """Instructions of one thread; `fp32` counts an instruction on a pair of numbers twice."""

    fp32: float
    slots: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.fp32 + other.fp32, self.slots + other.slots)

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.fp32 * factor, self.slots * factor)


@dataclass(frozen=True)
class Band:
    """What one pass over a band of rows does, in a kernel that loops over bands.

    Attributes:
        rectangles: rectangles of the band in this pass.
        passes: how many such passes a band needs.
        between: columns between the two chunks whose rectangles these are, on average; they are
            summed up in a small loop of their own.
    """

    rectangles: int
    passes: int
    between: float = 0.0


def rectangle_cost(launch: Launch, program: Sequence[Instruction]) -> Cost | None:
    """Cost of a rectangle, or None for a launch that has none."""
    arguments = launch.arguments
    if "RECTANGLES" in arguments:
        columns = arguments["IMAGES"] * arguments["BLOCK_D"] / launch.threads
        epilogue = (program[place] for place in behind_matrix_product(program))
        return total(epilogue) * (1 / (arguments["RECTANGLES"] * columns))
    bands = _bands(arguments) if "CHUNK" in arguments else []
    return band_cost(program, bands, arguments["H"], arguments["GATE"]) if bands else None


def total(instructions: Iterable[Instruction]) -> Cost:
    """Cost of instructions that run once."""
    kept = list(instructions)
    return Cost(sum(instruction.fp32 for instruction in kept), len(kept))


def behind_matrix_product(program: Sequence[Instruction]) -> set[int]:
    """What may run after the last matrix instruction, or the loop it is in; else everything."""
    everything = reachable(program, [0])
    products = [place for place in everything if program[place].multiplies]
    if not products:
        return everything
    around = [loop.members for loop in find_loops(program) if max(products) in loop.members]
    done = set(around[0]) if around else {max(products)}
    exits = {target for place in done for target in program[place].successors} - done
    return reachable(program, exits) - done


def band_cost(
    program: Sequence[Instruction], bands: Sequence[Band], height: int, gate: bool
) -> Cost:
    """Cost of a rectangle of a kernel with one loop for each of `bands`, in this order.

    Raises:
        ValueError: the loops of the program are not the ones that were expected.
    """
    sums, rectangles = Cost(0, 0), 0
    for band, (loop, around) in zip(bands, _densest_loops(program, len(bands)), strict=True):
        own = [program[place] for place in loop.own]
        cost = total(own) * (1 / _bands_at_once(own, band, gate))
        cost += _loop_rate(program, loop.inner) * band.between
        # From each top row, the bands that start there: (H + 1) / 2 of them on average.
        cost += total(program[place] for place in around.own) * (2 / (height + 1))
        sums += cost * band.passes
        rectangles += band.rectangles * band.passes
    return sums * (1 / rectangles)


def _bands(arguments: dict[str, Any]) -> list[Band]:
    """The passes of `large_map_kernel` in the order of its code."""
    width, chunk, gate = arguments["W"], arguments["CHUNK"], arguments["GATE"]
    chunks, rest = divmod(width, chunk)
    pairs = chunks * (chunks - 1) // 2
    gaps = [(last - first - 1) * chunk for last in range(chunks) for first in range(last)]
    within = [Band(chunk * (chunk + 1) // 2, chunks)]
    across = [Band(chunk * chunk, pairs, sum(gaps) / pairs)] if pairs else []
    if rest:
        across.append(Band(chunk * rest, chunks, chunk * (chunks - 1) / 2))
        within.append(Band(rest * (rest + 1) // 2, 1))
    if not gate:
        return within[:1] + across + within[1:]
    return within * arguments["WITHIN"] + across * arguments["ACROSS"]


def _densest_loops(program: Sequence[Instruction], count: int) -> list[tuple[Loop, Loop]]:
    """The `count` loops with most FP32 of their own, each with the loop around it, in order."""
    nested = [
        (inner, outer)
        for outermost in find_loops(program)
        for outer in outermost.walk()
        for inner in outer.inner
    ]
    if len(nested) < count:
        raise ValueError(f"expected {count} nested loops over bands, found {len(nested)}")
    nested.sort(key=lambda pair: -total(program[place] for place in pair[0].own).fp32)
    return sorted(nested[:count], key=lambda pair: pair[0].members)


def _bands_at_once(own: Sequence[Instruction], band: Band, gate: bool) -> int:
    """Bands that one run of the loop body handles, should the compiler have unrolled it.

    With the gate map a rectangle is one comparison; without it, it is two additions.
    """
    if gate:
        at_once = sum(instruction.compares for instruction in own) // band.rectangles
    else:
        at_once = sum(instruction.fp32 for instruction in own) // (2 * band.rectangles)
    if at_once == 0:
        raise ValueError(f"the loop has too few FP32 instructions for {band.rectangles} rectangles")
    return at_once


def _loop_rate(program: Sequence[Instruction], loops: Sequence[Loop]) -> Cost:
    """Cost of one column between two chunks: each is one load, and the longest loop does most."""
    if not loops:
        return Cost(0, 0)
    longest = [program[place] for place in max(loops, key=lambda loop: len(loop.members)).members]
    loads = sum(instruction.kind == "global" for instruction in longest)
    return total(longest) * (1 / max(1, loads))
