"""One shape's tensors, shared by the floor and every peer, and the part of them that is checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.shapes import Shape

MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
# Images and features whose results are held against the reference.
_IMAGES, _FEATURES = 2, 64
_REFERENCE_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Problem:
    """Inputs of one shape on one device.

    Attributes:
        x: the feature map, (N, C, H, W), in the memory format that is measured; standard normal.
        weight: (D, C), scaled so that a projection has unit variance.
        bias: (D,).
    """

    shape: Shape
    x: Tensor
    weight: Tensor
    bias: Tensor

    @cached_property
    def rows(self) -> Tensor:
        """(N*H*W, C), contiguous: what the floor projects. Making it is not part of its time."""
        return self.x.permute(0, 2, 3, 1).reshape(-1, self.shape.c).contiguous()

    @cached_property
    def images(self) -> Tensor:
        """Indices of the images that are checked, the first and the last among them."""
        return _spread(self.shape.n, _IMAGES, self.x.device)

    @cached_property
    def features(self) -> Tensor:
        """Indices of the output features that are checked; few where a map has many rectangles."""
        fits = _REFERENCE_BYTES // (8 * self.shape.rectangles)
        return _spread(self.shape.d, min(_FEATURES, max(1, fits)), self.x.device)


def make_problem(
    shape: Shape, device: torch.device, dtype: torch.dtype, memory_format: str
) -> Problem:
    """Draw the tensors of a shape, the same ones every time."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    x = normal(shape.n, shape.c, shape.height, shape.width)
    weight, bias = normal(shape.d, shape.c) / shape.c**0.5, normal(shape.d)
    return Problem(
        shape,
        x.to(device, dtype).contiguous(memory_format=MEMORY_FORMATS[memory_format]),
        weight.to(device, dtype),
        bias.to(device, dtype),
    )


def _spread(size: int, count: int, device: torch.device) -> Tensor:
    return torch.linspace(0, size - 1, min(size, count), device=device).round().long()
