"""The switch for packed halves: whether bfloat16 maps may be pooled in float16 arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_allowed = True


def allowed() -> bool:
    """Whether kernels may take packed halves where dispatch.py finds them faster."""
    return _allowed


@contextmanager
def packed_halves(enabled: bool) -> Iterator[None]:
    """Allow or forbid packed halves, for the whole process, while the context is entered.

    On GPUs that handle two float16 as fast as one float32 (compute capability 8.0, 9.0 and 10.0)
    the rectangles of bfloat16 maps are summed in float16, scaled column by column, two features a
    thread. Errors stay within twice those of torch operators in bfloat16. Without them the
    rectangles of bfloat16 maps are summed in float32 and fixed point, as everywhere else.

    Kernels look when they are launched, those of a backward pass too: enter the context around
    both passes.

    Args:
        enabled: True, as outside of any such context, or False.
    """
    global _allowed
    before, _allowed = _allowed, enabled
    try:
        yield
    finally:
        _allowed = before
