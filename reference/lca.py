"""Local-Concepts-Accumulation exactly as the paper states it (arXiv 2001.03992, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def lca_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    kernel_sizes: Iterable[tuple[int, int]] | None = None,
) -> Tensor:
    """Pool with every kernel size, send each local concept through one FC + ReLU, average.

    Args:
        x: (N, C, H, W) feature map.
        weight: (D, C) of the shared fully connected layer.
        bias: (D,) or None.
        kernel_sizes: (kh, kw) pairs; None means all of them but 1x1, as in the paper.

    Returns:
        (N, D), the mean over all local concepts, each rectangle weighing the same.
    """
    height, width = x.shape[2:]
    if kernel_sizes is None:
        kernel_sizes = [
            (kh, kw)
            for kh in range(1, height + 1)
            for kw in range(1, width + 1)
            if (kh, kw) != (1, 1)
        ]
    concepts = [
        F.avg_pool2d(x, kernel_size, stride=1).flatten(2).transpose(1, 2)  # (N, positions, C)
        for kernel_size in kernel_sizes
    ]
    activated = [F.relu(F.linear(concept, weight, bias)) for concept in concepts]
    return torch.cat(activated, dim=1).mean(dim=1)
