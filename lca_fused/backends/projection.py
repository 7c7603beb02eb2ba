"""The linear layer under LCA, on every position of a feature map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, C, H, W) -> (N, H, W, D), contiguous: one matrix product of N*H*W rows.

    The rows are copied unless `x` is channels_last. Left to itself F.linear multiplies each line
    of a strided map by the weight again where nothing wants a gradient, three times slower.
    """
    n, _, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    return F.linear(rows, weight, bias).view(n, height, width, weight.shape[0])
