"""A launch compiled and read: its machine code, how often that runs, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.compile_only import Launch, compile_launch
from benchmarks.cost import Cost, thread_cost
from benchmarks.disassembly import Instruction, Resources, disassemble
from benchmarks.executions import UnmatchedLoopsError, behind_matrix_product, executions
from benchmarks.ir import UnknownError, loops_of, parse
from benchmarks.trip_counts import follow


@dataclass(frozen=True)
class Analysis:
    """What the compiler made of a launch.

    Attributes:
        cost: what one thread costs; None where it is not known how often the loops run.
        pooling: the part of `cost` after the matrix product; all of it where there is no product.
        moved_bytes: the bytes that a program loads and stores; None as for `cost`.
        compile_seconds: CPU time of the compiler with nothing cached.
    """

    launch: Launch
    program: Sequence[Instruction]
    resources: Resources
    cost: Cost | None
    pooling: Cost | None
    moved_bytes: float | None
    compile_seconds: float

    @property
    def multiplies(self) -> bool:
        """Whether there is a matrix product in it."""
        return any(instruction.multiplies for instruction in self.program)


def analyze(launch: Launch) -> Analysis:
    """Compile a launch for its target and read the result."""
    compiled = compile_launch(launch)
    program, resources = disassemble(compiled.binary)
    cost = pooling = moved = None
    try:
        ir = parse(compiled.binary.asm["ttgir"])
        moved_bytes = follow(ir, launch.arguments, launch.grid)
        times = executions(program, loops_of(ir.body))
    except (UnknownError, UnmatchedLoopsError):
        pass
    else:
        cost, moved = thread_cost(program, times), moved_bytes
        pooling = thread_cost(program, times, behind_matrix_product(program))
    return Analysis(launch, program, resources, cost, pooling, moved, compiled.seconds)
