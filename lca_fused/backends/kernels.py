"""The modules of kernels, and what each of them offers."""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor

from lca_fused.backends import numba_cpu, triton_gpu
from lca_fused.rectangles import KernelSizes


class Kernels(Protocol):
    """What a module of kernels offers.

    Importing it needs neither triton nor numba. Tensors given to its kernels were checked and share
    device and dtype, autocast's where that is on, so that they cast nothing more. They are called
    where no gradient is recorded.
    """

    def unavailable(self, x: Tensor) -> str | None:
        """Why the kernels cannot serve x, or None where they can."""

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


KERNELS = {"triton": cast(Kernels, triton_gpu), "numba": cast(Kernels, numba_cpu)}
"""By the name of their backend, in the order "auto" tries them."""
