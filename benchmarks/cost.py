"""What a launch costs, counted in its disassembly: issue slots, cycles and arithmetic of a thread.

An issue slot is an instruction that a warp issues for its threads; a sub-partition of a
multiprocessor issues one per cycle. With many warps to hide each other's waits, slots bound the
time of a kernel, and where pairs of 16-bit numbers are computed the unit that does, which takes
longer than a slot for each; alone, a warp takes the cycles that the compiler's stall counts say,
and whatever it waits for memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from benchmarks.disassembly import Instruction

# Slots for which an instruction keeps the unit of 16-bit pairs busy, as `benchmarks.rates` measured
# on an H200, in which those of different kinds add up. What else is at half rate alone (IADD3,
# FSET) is issued at full rate beside instructions of other units.
_PAIRS = {"HFMA2.RELU": 1 / 0.679, "HSET2": 1 / 0.520, "HSETP2": 1 / 0.520}
_OTHER_PAIRS = 1 / 0.836


@dataclass(frozen=True)
class Cost:
    """The cost of one thread; after division that of one column or one rectangle.

    Attributes:
        slots: the number of instructions issued.
        busy: slots, those of 16-bit pairs counted for as long as their unit takes.
        loads: the number of loads from global memory that it waits for.
        arithmetic: the number of floating-point results; an instruction on a pair has two.
        cycles: the sum of the stall counts; None where the code has none (AMD).
    """

    slots: float
    busy: float
    loads: float
    arithmetic: float
    cycles: float | None

    def __truediv__(self, count: float) -> Cost:
        return Cost(
            self.slots / count,
            self.busy / count,
            self.loads / count,
            self.arithmetic / count,
            None if self.cycles is None else self.cycles / count,
        )


def thread_cost(
    program: Sequence[Instruction],
    times: Sequence[float],
    places: Collection[int] | None = None,
) -> Cost:
    """Return the cost of one thread.

    Args:
        program: the kernel's instructions.
        times: how often each instruction runs.
        places: the indices of the instructions that count; None for all.
    """
    kept = range(len(program)) if places is None else places
    run = [(program[place], times[place]) for place in kept if times[place]]
    stalls = [
        None if instruction.stall is None else max(1, instruction.stall) * count
        for instruction, count in run
    ]
    return Cost(
        sum(count for _, count in run),
        sum(_busy(instruction) * count for instruction, count in run),
        sum(instruction.loads * count for instruction, count in run),
        sum(instruction.arithmetic * count for instruction, count in run),
        None if None in stalls else sum(stall for stall in stalls if stall is not None),
    )


def _busy(instruction: Instruction) -> float:
    if instruction.kind != "fp16":
        return 1.0
    name, *modifiers = instruction.opcode.split(".")
    return _PAIRS.get(f"{name}.RELU" if "RELU" in modifiers else name, _OTHER_PAIRS)
