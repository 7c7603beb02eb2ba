"""What a module of kernels offers to the operator around it, and where the modules are."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Literal, Protocol, cast

from torch import Tensor

from lca_fused.rectangles import KernelSizes

KernelsName = Literal["triton", "numba"]


class Kernels(Protocol):
    """What a module of kernels offers; its arguments were checked and share device and dtype."""

    def to_rows(self, x: Tensor) -> Tensor:
        """(N, C, H, W), any strides -> (N, H, W, C), contiguous; a view where x is laid out so."""

    def project_and_pool(
        self,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_sizes: KernelSizes | None,
        training: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Project rows and pool their rectangles.

        Returns:
            (N, D) and, for training, what `projection_gradient` needs of the projection,
            (N, H, W, D) contiguous; both in the dtype of the rows and in memory of their own.
        """

    def projection_gradient(
        self, saved: Tensor, grad_pooled: Tensor, kernel_sizes: KernelSizes | None
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient of the projection, and its sum over the positions of each image.

        Args:
            saved: (N, H, W, D) contiguous, as `project_and_pool` returned it.
            grad_pooled: (N, D), any strides.
            kernel_sizes: those of the forward pass.

        Returns:
            (N, H, W, D) contiguous, in the dtype of `saved`; and (N, D), in the dtype of
            accumulation: float32, or float64 for float64.
        """


_MODULES: dict[str, str] = {
    "triton": "lca_fused.backends.triton_gpu.project_and_pool",
    "numba": "lca_fused.backends.numba_cpu",
}


@cache
def load(kernels: str) -> Kernels:
    """Import kernels on first use: importing the library must need neither triton nor numba."""
    return cast(Kernels, importlib.import_module(_MODULES[kernels]))
