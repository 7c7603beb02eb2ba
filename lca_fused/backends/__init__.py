"""Implementations of rectangle pooling, the one operator that is left of LCA after projection."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lca_fused.backends import eager
from lca_fused.rectangles import KernelSizes

Backend = Literal["auto", "eager"]

_BACKENDS = {"auto": eager, "eager": eager}


def check_backend(backend: str) -> None:
    """Raise ValueError unless `backend` names one of the implementations or "auto"."""
    if backend not in _BACKENDS:
        raise ValueError(
            f"backend is {backend!r}; expected one of {sorted(_BACKENDS)} "
            '("auto" picks one that can serve the input)'
        )


def rectangle_pooling(projection: Tensor, kernel_sizes: KernelSizes, backend: str) -> Tensor:
    """Mean over all rectangles r of relu(mean of `projection` over r).

    Args:
        projection: (N, H, W, D) floating point, any strides.
        kernel_sizes: as `lca_fused.rectangles.resolve_kernel_sizes` returns them.
        backend: checked by `check_backend`.

    Returns:
        (N, D) in the dtype of `projection`.
    """
    return _BACKENDS[backend].rectangle_pooling(projection, kernel_sizes)
