"""The projection that whitens a backbone's regions: what LCA starts from without training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def whitened_projection(
    maps: Tensor | Iterable[Tensor], out_features: int | None, region: tuple[int, int] = (3, 3)
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of LCA's linear layer that whiten the regions of feature maps.

    With mean m and covariance U diag(l) U^T of the regions' averages, and P = diag(l)^(-1/2) U^T
    cut to its `out_features` / 2 largest l, the weight is [P; -P] and the bias [-P m; P m]: outputs
    are uncorrelated over the regions, with variance 1, and ReLU keeps what is above the mean in the
    first half and what is below in the second. Whitening takes away what all photos have in common,
    so that the cosine of two outputs tells products apart. Whitened regions are those of R-MAC
    (arXiv 1511.05879, section 3.2), both signs are concatenated ReLU's (arXiv 1603.05201).

    Args:
        maps: (N, C, H, W) feature maps, or batches of them (of any sizes).
        out_features: D, an even number up to 2 C; None for C, or C - 1 where that is odd.
        region: (height, width) of the regions in positions, every one that fits; a smaller map is
            one region.

    Returns:
        (D, C) and (D,), float64 on the device of the maps (on the CPU where it has no float64).

    Raises:
        ValueError: `out_features` is odd or out of range, there are no maps, they are not
            (N, C, H, W) with the same C, hold numbers that are not finite, or have fewer regions
            than the directions that are asked for.
    """
    count, mean, covariance = _moments([maps] if isinstance(maps, Tensor) else maps, region)
    channels = len(mean)
    out_features = channels - channels % 2 if out_features is None else out_features
    if out_features % 2 or not 2 <= out_features <= 2 * channels:
        raise ValueError(
            f"out_features is {out_features}; expected an even number from 2 to twice the "
            f"{channels} channels of the maps: each direction is there with both signs"
        )
    directions = out_features // 2
    if count <= directions:
        raise ValueError(
            f"the maps have {count} regions; {directions} directions (half of out_features) need "
            f"more than that: give more maps, or out_features={2 * max(count - 1, 1)} or less"
        )
    variances, vectors = torch.linalg.eigh(covariance)
    largest = variances[-directions:].flip(0)
    # A channel that is always 0 has no variance; what is left there is rounding.
    spread = largest.clamp(min=1e-6 * float(largest[0].clamp(min=torch.finfo(torch.float32).tiny)))
    projection = vectors[:, -directions:].flip(1).T / spread.sqrt()[:, None]
    offset = projection @ mean
    return torch.cat([projection, -projection]), torch.cat([-offset, offset])


def _moments(maps: Iterable[Tensor], region: tuple[int, int]) -> tuple[int, Tensor, Tensor]:
    """Return the number of regions, and their mean (C,) and covariance (C, C) in float64."""
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for batch in maps:
        rows = _regions(batch, region)
        if total.dim() and rows.shape[1] != len(total):
            raise ValueError(
                f"maps have {rows.shape[1]} channels after others with {len(total)}; expected the "
                "maps of one backbone"
            )
        count += len(rows)
        total = total.to(rows) + rows.sum(0)
        products = products.to(rows) + rows.T @ rows
    if not count:
        raise ValueError("there are no maps; expected at least one (N, C, H, W) tensor")
    if not bool(products.isfinite().all()):
        raise ValueError("the maps hold numbers that are not finite; check the backbone's weights")
    mean = total / count
    return count, mean, products / count - torch.outer(mean, mean)


def _regions(batch: Tensor, region: tuple[int, int]) -> Tensor:
    """Return the averages of a batch's regions, (M, C) float64."""
    if batch.dim() != 4:
        raise ValueError(f"maps have shape {tuple(batch.shape)}; expected (N, C, H, W)")
    batch = batch.detach()
    batch = (batch.cpu() if batch.device.type == "mps" else batch).double()
    height, width = min(region[0], batch.shape[2]), min(region[1], batch.shape[3])
    return F.avg_pool2d(batch, (height, width), stride=1).movedim(1, -1).flatten(0, -2)
