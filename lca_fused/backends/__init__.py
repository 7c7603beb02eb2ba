"""Implementations of LCA, and which of them serves a call.

A backend is a module with `unavailable(x)`, why it cannot serve x or None, and
`local_concepts_accumulation(x, weight, bias, kernel_sizes)` for checked arguments.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor

from lca_fused.backends import eager, numba_cpu, triton_gpu
from lca_fused.backends.tracing import in_forward_mode, is_watched, recorder
from lca_fused.rectangles import KernelSizes


class Backend(Protocol):
    """What a backend module offers."""

    def unavailable(self, x: Tensor) -> str | None:
        """Why the backend cannot serve x, or None."""

    def local_concepts_accumulation(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, kernel_sizes: KernelSizes | None
    ) -> Tensor:
        """(N, C, H, W) -> (N, D); kernel sizes fit the map, None means all but 1x1."""


# In the order "auto" tries them; the last one serves everything.
_BACKENDS = {
    "triton": cast(Backend, triton_gpu),
    "numba": cast(Backend, numba_cpu),
    "eager": cast(Backend, eager),
}


def check_backend(backend: str) -> None:
    """Raise ValueError unless `backend` names one of the implementations or "auto"."""
    if backend != "auto" and backend not in _BACKENDS:
        raise ValueError(
            f"backend is {backend!r}; expected one of {sorted(['auto', *_BACKENDS])} "
            '("auto" picks one that can serve the input)'
        )


def choose(backend: str, x: Tensor) -> Backend:
    """Return the backend that serves x.

    Raises:
        ValueError: the backend asked for cannot serve x; it says why.
    """
    if backend == "auto":
        return _choose(x)
    chosen = _BACKENDS[backend]
    reason = _unseen(backend) or chosen.unavailable(x)
    if reason is not None:
        raise ValueError(
            f'backend="{backend}" cannot serve this input: {reason}; '
            'use backend="auto", which picks one that can, or "eager", which serves everything'
        )
    return chosen


def _unseen(backend: str) -> str | None:
    tracer = None if backend == "eager" else recorder()
    return None if tracer is None else f"{tracer} records torch operators and sees no kernels"


def _choose(x: Tensor) -> Backend:
    if _wants_plain_operators():
        return _BACKENDS["eager"]
    for backend in _BACKENDS.values():
        if backend.unavailable(x) is None:
            return backend
    raise AssertionError("the eager backend serves everything")


def _wants_plain_operators() -> bool:
    """Tracers, torch.func and forward mode take apart what they are given."""
    if torch.compiler.is_compiling():
        return recorder() is not None
    return (
        recorder() is not None
        or is_watched()
        or torch._C._are_functorch_transforms_active()
        or in_forward_mode()
    )
