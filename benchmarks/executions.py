"""How often every instruction of a compiled kernel runs in a thread.

Loops of the machine code are the loops of Triton's program in the same order, less those that the
compiler has unrolled; from there it is known how often they run. Outside of loops there may be
branches, of which the short one is the usual one: a kernel writes all its results whichever way it
goes, so of the ways that write most the shortest is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.disassembly import Instruction
from benchmarks.ir import Context, IrLoop
from benchmarks.loops import Loop, find_loops, reachable


class UnmatchedLoopsError(ValueError):
    """The loops of the machine code are not those of Triton's program."""


def executions(program: Sequence[Instruction], ir_loops: Sequence[IrLoop]) -> list[float]:
    """How often each instruction runs, on average over threads; 0 where it usually does not.

    Raises:
        UnmatchedLoopsError: the compiler has changed the loops beyond recognition.
    """
    outermost = find_loops(program)
    working = (_without_waits(loop, program) for loop in outermost)
    loops = tuple(loop for loop in working if loop is not None)
    runs = _matched([_Instance(loop, ((),)) for loop in ir_loops], loops)
    if runs is None:
        raise UnmatchedLoopsError(
            f"the machine code has loops {[_shape(loop) for loop in loops]}, which are not those "
            f"of Triton's program, {[_ir_shape(loop) for loop in ir_loops]}"
        )
    times = [0.0] * len(program)
    for place in _usual_way(program, outermost):
        times[place] = 1.0
    for loop, count in runs:
        for place in loop.own:
            times[place] = count
    return times


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


@dataclass(frozen=True)
class _Instance:
    """A loop of Triton's program in some of its contexts: in all, or in one if it was unrolled."""

    loop: IrLoop
    contexts: tuple[Context, ...]

    @property
    def runs(self) -> float:
        return sum(self.loop.runs.get(context, 0.0) for context in self.contexts)

    def body(self) -> list[_Instance]:
        """The loops inside, in every context that this one gives them."""
        return [_Instance(inner, _below(self.contexts, inner)) for inner in self.loop.inner]

    def unrolled(self) -> list[_Instance]:
        """The loops inside, once for each value of this loop's variable."""
        depth = len(self.contexts[0])
        below = {
            context[: depth + 1]
            for inner in self.loop.inner
            for context in _below(self.contexts, inner)
        }
        return [
            _Instance(inner, kept)
            for step in sorted(below)
            for inner in self.loop.inner
            if (kept := _below((step,), inner))
        ]


def _below(contexts: Sequence[Context], loop: IrLoop) -> tuple[Context, ...]:
    """The contexts in which `loop` ran that start with one of `contexts`."""
    return tuple(
        ran for ran in loop.runs if any(ran[: len(context)] == context for context in contexts)
    )


def _matched(
    expected: Sequence[_Instance], loops: Sequence[Loop]
) -> list[tuple[Loop, float]] | None:
    """Each loop of the machine code and how often it runs, or None if they are not as expected."""
    if not expected:
        return None if loops else []
    first, rest = expected[0], expected[1:]
    if loops:
        inside = _matched(first.body(), loops[0].inner)
        others = None if inside is None else _matched(rest, loops[1:])
        if inside is not None and others is not None:
            return [(loops[0], first.runs), *inside, *others]
    if first.runs == 0:
        return _matched(rest, loops)
    return _matched([*first.unrolled(), *rest], loops) if first.loop.constant else None


def _without_waits(loop: Loop, program: Sequence[Instruction]) -> Loop | None:
    """The loop less those inside it that only wait, or None if it does nothing else itself."""
    if all(program[place].kind in ("control", "move") for place in loop.members):
        return None
    kept = (_without_waits(inner, program) for inner in loop.inner)
    return Loop(loop.members, tuple(inner for inner in kept if inner is not None))


def _usual_way(program: Sequence[Instruction], outermost: Sequence[Loop]) -> set[int]:
    """The way from the first instruction to the last that writes most; of several the shortest.

    A loop is one step of a way.
    """
    steps: dict[int, tuple[int, ...]] = {place: (place,) for place in reachable(program, [0])}
    for loop in outermost:
        steps |= dict.fromkeys(loop.members, loop.members)
    # What the best way on from a step's first instruction writes, and its length, negated.
    best: dict[int, tuple[int, int]] = {}
    following: dict[int, int | None] = {}
    pending = [steps[0][0]]
    while pending:
        here = pending[-1]
        members = steps[here]
        targets = {steps[t][0] for place in members for t in program[place].successors} - {here}
        if unknown := [target for target in targets if target not in best]:
            pending += unknown
            continue
        pending.pop()
        onward = max(targets, key=lambda target: (best[target], -target), default=None)
        writes, length = (0, 0) if onward is None else best[onward]
        own = sum(program[place].stores for place in members)
        best[here], following[here] = (writes + own, length - len(members)), onward
    way: set[int] = set()
    here_or_end: int | None = steps[0][0]
    while here_or_end is not None:
        way |= set(steps[here_or_end])
        here_or_end = following[here_or_end]
    return way


def _shape(loop: Loop) -> str:
    return "(" + "".join(map(_shape, loop.inner)) + ")"


def _ir_shape(loop: IrLoop) -> str:
    return "(" + "".join(map(_ir_shape, loop.inner)) + ")"
