"""Local-Concepts-Accumulation as a module, a drop-in for global pooling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lca_fused.backends import check_backend
from lca_fused.functional import local_concepts_accumulation
from lca_fused.integers import integer
from lca_fused.rectangles import normalize_kernel_sizes
from lca_fused.whitening import whitened_projection


class LCA(nn.Module):
    """Mean over all rectangles of relu(linear(average pool over the rectangle)).

    arXiv 2001.03992, section 3.2: put it between a backbone and its classifier, in place of
    global pooling. Maps of any size, square or not, may follow each other.

    Args:
        in_features: C, channels of the feature map.
        out_features: D, features returned; None means D = C.
        bias: whether the shared linear layer has a bias.
        kernel_sizes: (kh, kw) pairs in positions; None means every size that fits the map but
            1x1, as in the paper.
        backend: as `local_concepts_accumulation` takes it.
        device: the device of the parameters.
        dtype: the dtype of the parameters.

    Shape:
        (N, C, H, W) -> (N, D).

    Attributes:
        weight: (D, C). As nn.Linear names and initialises it.
        bias: (D,) or None. As nn.Linear names and initialises it.

    Raises:
        ValueError: in_features or out_features below 1, empty or repeated kernel sizes, an
            unknown backend; at the call as `local_concepts_accumulation` does.
        TypeError: in_features or out_features is no integer, or kernel sizes are not pairs of them.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int | None = None,
        bias: bool = True,
        *,
        kernel_sizes: Iterable[tuple[int, int]] | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        in_features = integer("in_features", in_features)
        out_features = (
            in_features if out_features is None else integer("out_features", out_features)
        )
        if in_features < 1 or out_features < 1:
            raise ValueError(
                f"in_features is {in_features} and out_features is {out_features}; "
                "both must be at least 1"
            )
        check_backend(backend)
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_sizes = None if kernel_sizes is None else normalize_kernel_sizes(kernel_sizes)
        self.backend = backend
        self.weight = nn.Parameter(
            torch.empty(out_features, in_features, device=device, dtype=dtype)
        )
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    @classmethod
    def from_features(
        cls, maps: Tensor | Iterable[Tensor], out_features: int | None = None, **options: Any
    ) -> LCA:
        """Make a layer that is of use before any training: it whitens the regions of maps.

        The mathematics and its sources are at `lca_fused.whitening.whitened_projection`. The
        output serves as an embedding (compared by its cosine) and as a start for training.

        Args:
            maps: (N, C, H, W) feature maps of photos like those to come, which need no labels; or
                an iterable of such batches, as of a data loader.
            out_features: D, an even number up to 2 C; None for C, or C - 1 where that is odd.
            **options: `kernel_sizes`, `backend`, `device` and `dtype`, as of the layer; by default
                the device is that of the maps.

        Raises:
            ValueError: as `whitened_projection` and the layer do.
            TypeError: as the layer does.
        """
        weight, bias = whitened_projection(maps, out_features)
        layer = cls(weight.shape[1], weight.shape[0], **({"device": weight.device} | options))
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        return layer

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, as nn.Linear does."""
        nn.Linear.reset_parameters(self)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, D) for a feature map (N, C, H, W)."""
        return local_concepts_accumulation(
            x, self.weight, self.bias, kernel_sizes=self.kernel_sizes, backend=self.backend
        )

    def extra_repr(self) -> str:
        """Return the arguments that make this layer, as print(model) shows them."""
        arguments = f"in_features={self.in_features}, out_features={self.out_features}"
        arguments += f", bias={self.bias is not None}"
        if self.kernel_sizes is not None:
            arguments += f", kernel_sizes={list(self.kernel_sizes)}"
        return f"{arguments}, backend={self.backend!r}"
