"""The linear layer under LCA, on every position of a feature map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, C, H, W), any strides -> (N, H, W, D): as `project_rows`, after laying x out as rows."""
    return project_rows(x.permute(0, 2, 3, 1), weight, bias)


def project_rows(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, H, W, C) -> (N, H, W, D), contiguous: one matrix product of N*H*W rows.

    Rows that are not contiguous are copied. Left to itself F.linear multiplies each line of a
    strided map by the weight again where nothing wants a gradient, three times slower.
    """
    n, height, width, _ = rows.shape
    return F.linear(rows.flatten(0, 2), weight, bias).view(n, height, width, weight.shape[0])
