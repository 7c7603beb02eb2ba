"""The switch for packed halves: whether bfloat16 maps may be pooled in float16 arithmetic."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()
_entered: list[tuple[object, bool]] = []  # contexts, in the order they were entered


def allowed() -> bool:
    """Whether kernels may take packed halves where dispatch.py finds them faster."""
    entered = _entered  # never changed in place
    return entered[-1][1] if entered else True


@contextmanager
def packed_halves(enabled: bool) -> Iterator[None]:
    """Allow or forbid packed halves, for the whole process, while the context is entered.

    On GPUs that handle two float16 as fast as one float32 (compute capability 8.0, 9.0 and 10.0)
    the rectangles of bfloat16 maps are summed in float16, scaled column by column, two features
    per thread. Errors stay within twice those of torch operators in bfloat16. Without them the
    rectangles of bfloat16 maps are summed in float32 and fixed point, as everywhere else.

    Kernels look when they are launched, those of a backward pass too, which torch runs in threads
    of its own: enter the context around both passes. Of contexts in several threads the one that
    was entered last counts, and leaving one leaves the others as they are.

    Args:
        enabled: True, as outside of any such context, or False.
    """
    global _entered
    own = (object(), enabled)
    with _LOCK:
        _entered = [*_entered, own]
    try:
        yield
    finally:
        with _LOCK:
            _entered = [context for context in _entered if context is not own]
