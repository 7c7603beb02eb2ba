"""Loops, branches and memory accesses of a kernel in Triton's own program (TTGIR), parsed."""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod

_NAME = r"%[\w.$-]+(?:#\d+)?"
_RESULT = rf"\s*(?:{_NAME}(?::\d+)? = )?"
_DEFINITION = re.compile(rf"\s*({_NAME}) = (arith\.\w+|tt\.get_\w+) (.*?)(?: : .*)?$")
_FOR = re.compile(rf"{_RESULT}scf\.for ({_NAME}) = ({_NAME}) to ({_NAME}) step ({_NAME})")
_WHILE = re.compile(rf"{_RESULT}scf\.while\b")
_IF = re.compile(rf"{_RESULT}scf\.if ({_NAME})")
_ACCESS = re.compile(
    r"(?:tt\.(?:load|store)|async_copy_global_to_local)\b.*?"
    r"tensor<((?:\d+x)+)!tt\.ptr<[a-z]+(\d+)>"
)
_LOCATION = re.compile(r" loc\([^()]*\)$")

Context = tuple[int, ...]
"""Values of the variables of the loops with constant bounds around a loop, outermost first."""


class UnknownError(ValueError):
    """A number that is not known before the kernel runs."""


@dataclass(eq=False)
class IrLoop:
    """A loop of the IR.

    Attributes:
        variable: the name of its variable; None for a `while`.
        bounds: names of its first value, the value it stops before, and its step.
        body: what is in it, in order.
        constant: whether the compiler knows its bounds, and so may unroll it.
        runs: executions of its body in a program, on average, by context.
    """

    variable: str | None
    bounds: tuple[str, ...]
    body: list[Item] = field(default_factory=list)
    constant: bool = False
    runs: dict[Context, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def inner(self) -> list[IrLoop]:
        """The loops directly inside it, those in branches among them."""
        return loops_of(self.body)


@dataclass(eq=False)
class Branch:
    """Two alternatives; a condition that is not known is taken to be false."""

    condition: str
    then: list[Item] = field(default_factory=list)
    otherwise: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class Access:
    """Bytes that loads and stores of a program move, masked elements among them."""

    size: int


Item = IrLoop | Branch | Access


@dataclass(frozen=True)
class Definition:
    """How a name that stands for one number comes about.

    Attributes:
        compute: returns the number from those of `operands`; None where it depends on data.
        operands: names; what the program is asked for is one too, "tt.get_program_id x".
    """

    compute: Callable[..., int] | None
    operands: tuple[str, ...]


def loops_of(items: Sequence[Item]) -> list[IrLoop]:
    """The outermost loops of a sequence, in the order of the code."""
    loops = []
    for item in items:
        if isinstance(item, IrLoop):
            loops.append(item)
        elif isinstance(item, Branch):
            loops += loops_of(item.then) + loops_of(item.otherwise)
    return loops


@dataclass(frozen=True)
class Ir:
    """A parsed kernel.

    Attributes:
        body: its loops, branches and accesses, in order.
        definitions: of every name that stands for one number.
    """

    body: Sequence[Item]
    definitions: Mapping[str, Definition]

    def value(self, name: str, values: Mapping[str, int]) -> int:
        """The number that a name stands for.

        Args:
            name: starts with %.
            values: arguments and loop variables, by name; what the program is asked for by the
                operation, such as "tt.get_program_id x".

        Raises:
            UnknownError: it depends on data, or on a name that is not among `values`.
        """
        if name in values:
            return values[name]
        definition = self.definitions.get(name)
        if definition is None or definition.compute is None:
            raise UnknownError(f"{name} is not known before the kernel runs")
        return definition.compute(*[self.value(each, values) for each in definition.operands])

    def is_known(self, name: str, values: Mapping[str, int]) -> bool:
        """Whether `value` finds a number."""
        try:
            self.value(name, values)
        except UnknownError:
            return False
        return True

    def asks_for_program(self, name: str) -> bool:
        """Whether the number differs from program to program."""
        definition = self.definitions.get(name)
        return name.startswith("tt.get_program_id") or (
            definition is not None and any(map(self.asks_for_program, definition.operands))
        )


def parse(text: str) -> Ir:
    """Parse TTGIR as Triton prints it."""
    body: list[Item] = []
    definitions: dict[str, Definition] = {}
    ir = Ir(body, definitions)
    regions: list[tuple[Item | None, list[Item]]] = [(None, body)]  # the open ones
    for line in text.splitlines():
        code = _LOCATION.sub("", line.rstrip())
        if code.lstrip().startswith("}"):
            regions += _next_region(code.lstrip(), regions.pop()[0])
            continue
        if found := _DEFINITION.match(code):
            definitions[found[1]] = _definition(found[2], found[3])
        owner = _parsed(code, ir, [item for item, _ in regions if isinstance(item, IrLoop)])
        if owner is not None:
            _append(regions[-1][1], owner)
        if code.endswith(("{", "({")):
            inside = regions[-1][1]
            if isinstance(owner, IrLoop):
                inside = owner.body
            elif isinstance(owner, Branch):
                inside = owner.then
            regions.append((owner, inside))
    return ir


def _parsed(code: str, ir: Ir, around: Sequence[IrLoop]) -> Item | None:
    if found := _ACCESS.search(code):
        if "async_copy" in code and not around:
            return None  # ahead of a pipelined loop, whose last rounds copy as much less
        elements = prod(map(int, found[1].rstrip("x").split("x")))
        return Access(elements * int(found[2]) // 8)
    if found := _FOR.match(code):
        bounds = found.groups()[1:]
        variables = {loop.variable: 0 for loop in around if loop.constant and loop.variable}
        return IrLoop(found[1], bounds, constant=all(ir.is_known(b, variables) for b in bounds))
    if _WHILE.match(code):
        return IrLoop(None, (), constant=True)
    if found := _IF.match(code):
        return Branch(found[1])
    return None


def _append(items: list[Item], item: Item) -> None:
    """Add an item; of accesses in a row, of which there are hundreds, only their sum matters."""
    last = items[-1] if items else None
    if isinstance(item, Access) and isinstance(last, Access):
        items[-1] = Access(last.size + item.size)
    else:
        items.append(item)


def _next_region(code: str, owner: Item | None) -> list[tuple[Item | None, list[Item]]]:
    """The region that opens where one of `owner` closes."""
    if code.startswith("} else") and isinstance(owner, Branch):
        return [(owner, owner.otherwise)]
    if code.startswith("} do") and isinstance(owner, IrLoop):
        return [(owner, owner.body)]
    return []


def _definition(kind: str, operands: str) -> Definition:
    if kind.startswith("tt.get_"):
        return Definition(_same, (f"{kind} {operands}",))
    operation = kind.removeprefix("arith.")
    if operation == "constant":
        number = {"true": 1, "false": 0}.get(operands)
        if number is None and re.fullmatch(r"-?\d+", operands):
            number = int(operands)
        return Definition(None if number is None else partial(_same, number), ())
    if operation == "cmpi":
        operation = operands.partition(",")[0]
    return Definition(_OPERATIONS.get(operation), tuple(re.findall(_NAME, operands)))


def _truncated(dividend: int, divisor: int) -> int:
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def _remainder(dividend: int, divisor: int) -> int:
    return dividend - divisor * _truncated(dividend, divisor)


def _same(value: int) -> int:
    return value


_OPERATIONS: dict[str, Callable[..., int]] = {
    "addi": operator.add,
    "subi": operator.sub,
    "muli": operator.mul,
    "divsi": _truncated,
    "divui": _truncated,
    "ceildivsi": lambda dividend, divisor: -(-dividend // divisor),
    "floordivsi": operator.floordiv,
    "remsi": _remainder,
    "remui": _remainder,
    "andi": operator.and_,
    "ori": operator.or_,
    "xori": operator.xor,
    "shli": operator.lshift,
    "shrsi": operator.rshift,
    "shrui": operator.rshift,
    "select": lambda condition, then, otherwise: then if condition else otherwise,
    **dict.fromkeys(("minsi", "minui"), min),
    **dict.fromkeys(("maxsi", "maxui"), max),
    **dict.fromkeys(("extsi", "extui", "trunci", "index_cast"), _same),
    "eq": operator.eq,
    "ne": operator.ne,
    **dict.fromkeys(("slt", "ult"), operator.lt),
    **dict.fromkeys(("sle", "ule"), operator.le),
    **dict.fromkeys(("sgt", "ugt"), operator.gt),
    **dict.fromkeys(("sge", "uge"), operator.ge),
}
