"""How often the loops of a kernel run and what it moves, from Triton's own program (TTGIR).

There the bounds of a loop are written out: constants, arguments of the launch, variables of the
loops around it and the number of the program. What depends on data is taken to be rare: a branch
on it is not taken. A `while` runs once, as the library's do.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from benchmarks.ir import Access, Branch, Context, Ir, IrLoop, Item, UnknownError

# At most so many programs are followed, drawn at random, where loops differ between programs.
_PROGRAMS = 1024


def follow(ir: Ir, arguments: Mapping[str, object], grid: Sequence[int]) -> float:
    """Fill in how often the loops of `ir` run in a program, on average over the grid.

    Args:
        ir: the kernel, which was not followed before.
        arguments: the launch's arguments, by name.
        grid: the number of programs along each axis.

    Returns:
        Bytes that a program loads and stores, on average. Loads of single numbers, which all
        threads share, are left out.

    Raises:
        UnknownError: a loop's bounds depend on data.
    """
    numbers = {f"%{name}": value for name, value in arguments.items() if isinstance(value, int)}
    programs = _programs(ir, tuple(grid) + (1,) * (3 - len(grid)))
    runs = (
        _run(ir, ir.body, {**numbers, **program}, (), 1 / len(programs)) for program in programs
    )
    return sum(runs)


def _programs(ir: Ir, grid: tuple[int, ...]) -> list[dict[str, int]]:
    """Return the place and the grid each program is told; one program's where all are alike."""
    chosen: Iterable[int] = range(prod(grid))
    if not any(map(ir.asks_for_program, _conditions(ir.body))):
        chosen = [0]
    elif prod(grid) > _PROGRAMS:
        chosen = random.Random(0).sample(range(prod(grid)), _PROGRAMS)
    sizes = {f"tt.get_num_programs {axis}": size for axis, size in zip("xyz", grid, strict=True)}
    found = []
    for i in chosen:
        place = (i % grid[0], i // grid[0] % grid[1], i // (grid[0] * grid[1]))
        numbers = {f"tt.get_program_id {axis}": n for axis, n in zip("xyz", place, strict=True)}
        found.append(sizes | numbers)
    return found


def _conditions(items: Sequence[Item]) -> list[str]:
    """Names that decide how often something runs."""
    names: list[str] = []
    for item in items:
        if isinstance(item, IrLoop):
            names += [*item.bounds, *_conditions(item.body)]
        elif isinstance(item, Branch):
            names += [item.condition, *_conditions(item.then), *_conditions(item.otherwise)]
    return names


def _run(
    ir: Ir, items: Sequence[Item], values: Mapping[str, int], context: Context, times: float
) -> float:
    """Run items `times` times; return the bytes moved."""
    moved = 0.0
    for item in items:
        if isinstance(item, Access):
            moved += times * item.size
        elif isinstance(item, Branch):
            taken = item.then if _is_true(ir, item.condition, values) else item.otherwise
            moved += _run(ir, taken, values, context, times)
        elif item.variable is None:
            item.runs[context] += times
            moved += _run(ir, item.body, values, (*context, 0), times)
        else:
            moved += _run_loop(ir, item, values, context, times)
    return moved


def _run_loop(
    ir: Ir, loop: IrLoop, values: Mapping[str, int], context: Context, times: float
) -> float:
    first, end, step = (ir.value(name, values) for name in loop.bounds)
    steps = range(first, end, step)
    loop.runs[context] += times * len(steps)
    if all(isinstance(item, Access) for item in loop.body):
        return _run(ir, loop.body, values, context, times * len(steps))
    moved = 0.0
    for variable in steps:
        inside = (*context, variable) if loop.constant else context
        moved += _run(ir, loop.body, {**values, str(loop.variable): variable}, inside, times)
    return moved


def _is_true(ir: Ir, condition: str, values: Mapping[str, int]) -> bool:
    try:
        return bool(ir.value(condition, values))
    except UnknownError:
        return False
