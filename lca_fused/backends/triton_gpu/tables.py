"""Kernel sizes as the kernels take them: a bit mask, or tables of weights on the device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache

import torch
from torch import Tensor

from lca_fused.rectangles import KernelSizes, num_rectangles, resolve_kernel_sizes


@lru_cache(maxsize=256)
def orientation(
    height: int, width: int, kernel_sizes: KernelSizes | None
) -> tuple[bool, int, int, KernelSizes | None]:
    """Return whether to transpose the map, and its sides and kernel sizes after that.

    A map at least as wide as it is high has fewer bands with more rectangles each, and what a band
    costs besides its rectangles is shared by more of them. In registers it also spills less: on
    sm_90 the one-launch kernel spilled at 12x5 and does not at 5x12.
    """
    if height <= width:
        return False, height, width, kernel_sizes
    if kernel_sizes is not None:
        kernel_sizes = tuple(sorted((kw, kh) for kh, kw in kernel_sizes))
    return True, width, height, kernel_sizes


@lru_cache(maxsize=256)
def bit_mask(height: int, width: int, kernel_sizes: KernelSizes | None) -> tuple[int, int]:
    """Return the mask `columns` reads, bit (kh - 1) * W + kw - 1, and the number of rectangles."""
    sizes = resolve_kernel_sizes(height, width, kernel_sizes)
    mask = sum(1 << ((kh - 1) * width + kw - 1) for kh, kw in sizes)
    return mask, num_rectangles(height, width, sizes)


@cache  # without a bound: a captured CUDA graph reads its tables for as long as it is replayed
def weight_tables(
    height: int,
    width: int,
    kernel_sizes: KernelSizes | None,
    device: torch.device,
    dtype: torch.dtype,
    halves: bool = False,
) -> tuple[Tensor, Tensor, int]:
    """Return a weight for each width and each height, and the number of rectangles.

    The first, (H, W), holds 1 / kw for the kernel sizes (kh, kw) that are wanted and 0 elsewhere,
    the second, (H,), 1 / kh: an area's share of the two is more than packed halves can add up.

    Args:
        height: H of the map.
        width: W of the map.
        kernel_sizes: (kh, kw) pairs that fit the map; None means all but 1x1.
        device: the device the kernels run on.
        dtype: the dtype of the weights.
        halves: whether the weights of widths are wanted as pairs of equal float16 in an int32.

    Raises:
        RuntimeError: a CUDA graph is being captured, into which the copies would go.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"the first call for maps of sides {height} and {width}, these kernel sizes and this "
            f"dtype copies tables to {device}, which a CUDA graph cannot capture: call it once "
            f"before the capture"
        )
    sizes = resolve_kernel_sizes(height, width, kernel_sizes)
    # A thread has none of the caller's modes. Above all, torch.compile's CUDA graphs give what the
    # calling thread allocates to the graph's memory pool, and refuse what outlives the call.
    with ThreadPoolExecutor(1) as thread:
        tables = thread.submit(_make_tables, height, width, sizes, device, dtype, halves)
    return *tables.result(), num_rectangles(height, width, sizes)


def _make_tables(
    height: int,
    width: int,
    sizes: KernelSizes,
    device: torch.device,
    dtype: torch.dtype,
    halves: bool,
) -> tuple[Tensor, Tensor]:
    widths = torch.zeros(height, width, dtype=torch.float64, device="cpu")
    for kh, kw in sizes:
        widths[kh - 1, kw - 1] = 1 / kw
    heights = 1 / torch.arange(1, height + 1, dtype=torch.float64, device="cpu")
    if halves:
        pairs = widths.half().unsqueeze(-1).expand(height, width, 2)
        return pairs.contiguous().view(torch.int32).squeeze(-1).to(device), heights.to(
            device, dtype
        )
    return widths.to(device, dtype), heights.to(device, dtype)
