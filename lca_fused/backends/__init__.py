"""Implementations of LCA, and which of them serves a call.

A backend is one of the modules of kernels, behind the operator that they share, or "eager", plain
torch operators.
"""

from __future__ import annotations

from torch import Tensor

from lca_fused.backends import eager, operator
from lca_fused.backends.kernels import KERNELS
from lca_fused.backends.tracing import in_forward_mode, in_transform, is_watched, recorder
from lca_fused.rectangles import KernelSizes

EAGER = "eager"


def local_concepts_accumulation(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: KernelSizes | None,
    backend: str,
) -> Tensor:
    """(N, C, H, W) -> (N, D) for checked arguments; None means all kernel sizes but 1x1.

    Raises:
        ValueError: the backend asked for cannot serve x; it says why.
    """
    chosen = choose(backend, x)
    if chosen == EAGER:
        return eager.local_concepts_accumulation(x, weight, bias, kernel_sizes)
    return operator.accumulate(x, weight, bias, kernel_sizes, chosen)


def check_backend(backend: str) -> None:
    """Raise ValueError unless `backend` names one of the implementations or "auto"."""
    if backend != "auto" and backend != EAGER and backend not in KERNELS:
        raise ValueError(
            f"backend is {backend!r}; expected one of {sorted(['auto', EAGER, *KERNELS])} "
            '("auto" picks one that can serve the input)'
        )


def choose(backend: str, x: Tensor) -> str:
    """Return the name of the backend that serves x.

    Raises:
        ValueError: the backend asked for cannot serve x; it says why.
    """
    if backend == "auto":
        return _choose(x)
    reason = None if backend == EAGER else _unseen() or KERNELS[backend].unavailable(x)
    if reason is not None:
        raise ValueError(
            f'backend="{backend}" cannot serve this input: {reason}; '
            'use backend="auto", which picks one that can, or "eager", which serves everything'
        )
    return backend


def _unseen() -> str | None:
    tracer = recorder()
    if tracer is not None:
        return f"{tracer} records torch operators and sees no kernels"
    if in_transform():
        return "torch.func transforms torch operators and sees no kernels"
    return None


def _choose(x: Tensor) -> str:
    if not _wants_plain_operators():
        for name, kernels in KERNELS.items():
            if kernels.unavailable(x) is None:
                return name
    return EAGER


def _wants_plain_operators() -> bool:
    """Tracers, torch.func and forward mode take apart what they are given."""
    return recorder() is not None or in_transform() or in_forward_mode() or is_watched()
