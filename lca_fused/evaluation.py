"""Evaluation mode for a while, of a model that several threads may use at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn


@dataclass
class _Held:
    training: bool
    users: int = 0


_LOCK = threading.Lock()
_held: dict[nn.Module, _Held] = {}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put `model` in evaluation mode, and every module back in its own afterwards.

    Where several threads are in here, the last one to leave puts a module back. Modes are set
    without calling `eval`, which models overload to merge or to swap weights.
    """
    modules = list(model.modules())
    with _LOCK:
        for module in modules:
            _held.setdefault(module, _Held(module.training)).users += 1
            module.training = False
    try:
        yield
    finally:
        with _LOCK:
            for module in modules:
                held = _held[module]
                held.users -= 1
                if held.users == 0:
                    module.training = held.training
                    del _held[module]
