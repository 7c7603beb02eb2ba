"""A pooling head that is ready to run, in the two ways that are measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Head:
    """A module and what it is called with.

    Attributes:
        module: maps `input` to (N, D), the floor to (N*H*W, D).
        input: the tensor it is called with, (N, C, H, W), or (N*H*W, C) for the floor.
        is_lca: whether the module computes LCA with the problem's weight and bias.
        backend: the LCA backend that serves the input, where there is one.
    """

    module: nn.Module
    input: Tensor
    is_lca: bool
    backend: str | None = None

    @cached_property
    def leaves(self) -> dict[str, Tensor]:
        """The tensors whose gradients training needs: the input as "x", and the parameters."""
        return {"x": self.input.detach().requires_grad_(), **dict(self.module.named_parameters())}

    def __call__(self) -> Tensor:
        """Run forward; whether a graph is recorded is up to the caller."""
        return self.module(self.leaves["x"])

    def gradients(self, output: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of `leaves`, for dL/d`output`."""
        return torch.autograd.grad(output, list(self.leaves.values()), gradient)

    def inference(self) -> None:
        """Forward without a graph."""
        with torch.no_grad():
            self()

    def training(self) -> None:
        """Forward and backward, every gradient."""
        output = self()
        self.gradients(output, self._gradient(output))

    def _gradient(self, output: Tensor) -> Tensor:
        # Made on the first call, which is never timed.
        if "gradient" not in self.__dict__:
            self.__dict__["gradient"] = torch.randn_like(output)
        return self.__dict__["gradient"]
