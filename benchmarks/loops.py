"""Loops of a disassembled kernel, from what may run after what.

Compilers move blocks about, so a loop is not always a stretch of code that ends in a branch
backward. Here it is a largest set of instructions that can all reach one another; the loops inside
it are found the same way once the branches back to its first instruction are cut.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.disassembly import Instruction


@dataclass(frozen=True)
class Loop:
    """Indices of a loop's instructions, sorted, and the loops directly inside it."""

    members: tuple[int, ...]
    inner: tuple[Loop, ...]

    @property
    def own(self) -> tuple[int, ...]:
        """Members that are in none of the inner loops."""
        nested = {place for loop in self.inner for place in loop.members}
        return tuple(place for place in self.members if place not in nested)

    def walk(self) -> Iterable[Loop]:
        """The loop itself and all loops in it."""
        yield self
        for loop in self.inner:
            yield from loop.walk()


def find_loops(program: Sequence[Instruction]) -> tuple[Loop, ...]:
    """The outermost loops that the program's first instruction can reach, in order."""
    places = reachable(program, [0]) if program else set()
    return _loops({place: program[place].successors for place in places}, entries={0})


def reachable(program: Sequence[Instruction], starts: Iterable[int]) -> set[int]:
    """Indices of `starts` and of all that may run after them."""
    seen: set[int] = set()
    pending = list(starts)
    while pending:
        place = pending.pop()
        if place not in seen:
            seen.add(place)
            pending.extend(program[place].successors)
    return seen


def _loops(graph: dict[int, tuple[int, ...]], entries: Collection[int]) -> tuple[Loop, ...]:
    found = []
    for members in _cycles(graph):
        outside = {
            target
            for place, targets in graph.items()
            if place not in members
            for target in targets
            if target in members
        }
        heads = outside | (members & set(entries))
        head = min(heads or members)
        body = {
            place: tuple(target for target in graph[place] if target in members and target != head)
            for place in members
        }
        found.append(Loop(tuple(sorted(members)), _loops(body, entries={head})))
    return tuple(sorted(found, key=lambda loop: loop.members))


def _cycles(graph: dict[int, tuple[int, ...]]) -> list[set[int]]:
    """Sets of more than zero steps from each member to each: Tarjan's algorithm, no recursion."""
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found = []
    for root in sorted(graph):
        work = [] if root in order else [(root, 0)]
        while work:
            place, step = work.pop()
            if step == 0:
                order[place] = lowest[place] = len(order)
                stack.append(place)
                on_stack.add(place)
            targets = [target for target in graph[place] if target in graph]
            if step > 0:
                lowest[place] = min(lowest[place], lowest[targets[step - 1]])
            for index in range(step, len(targets)):
                target = targets[index]
                if target not in order:
                    work += [(place, index + 1), (target, 0)]
                    break
                if target in on_stack:
                    lowest[place] = min(lowest[place], order[target])
            else:
                if lowest[place] == order[place]:
                    members = set()
                    while place not in members:
                        members.add(stack.pop())
                    on_stack -= members
                    if len(members) > 1 or place in graph[place]:
                        found.append(members)
    return found
