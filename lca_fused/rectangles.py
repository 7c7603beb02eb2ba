"""The geometry of LCA: which kernel sizes a feature map is pooled with, and how many rectangles."""

from __future__ import annotations

from collections.abc import Iterable

from lca_fused.integers import as_integer

KernelSizes = tuple[tuple[int, int], ...]

_PAIRS = "expected pairs of integers (kh, kw), e.g. [(1, 2), (2, 1), (2, 2)]"


def resolve_kernel_sizes(
    height: int, width: int, kernel_sizes: Iterable[tuple[int, int]] | None = None
) -> KernelSizes:
    """Return the kernel sizes (kh, kw) that pool a height x width map, sorted.

    Args:
        height: H of the feature map, in positions.
        width: W of the feature map, in positions.
        kernel_sizes: None for the paper's choice (every size that fits, other than 1x1), or
            (kh, kw) pairs; 1x1 may be among them.

    Raises:
        ValueError: the map is 1x1 and no kernel sizes are given; no kernel size is given; one of
            them is given twice or does not fit the map.
        TypeError: `kernel_sizes` is not made of pairs of integers.
    """
    normalized = None if kernel_sizes is None else normalize_kernel_sizes(kernel_sizes)
    check_kernel_sizes(height, width, normalized)
    if normalized is not None:
        return normalized
    return tuple(
        (kh, kw) for kh in range(1, height + 1) for kw in range(1, width + 1) if (kh, kw) != (1, 1)
    )


def check_kernel_sizes(height: int, width: int, kernel_sizes: KernelSizes | None) -> None:
    """Raise ValueError unless there are rectangles: see `resolve_kernel_sizes`."""
    if kernel_sizes is None:
        if height == width == 1:
            raise ValueError(
                "a 1x1 feature map has no rectangle larger than 1x1, so there is nothing to "
                "accumulate; feed larger images, take the map before the backbone's last pooling, "
                "or pass kernel_sizes=[(1, 1)]"
            )
        return
    too_large = [(kh, kw) for kh, kw in kernel_sizes if kh > height or kw > width]
    if too_large:
        raise ValueError(
            f"kernel sizes {too_large} do not fit the {height}x{width} feature map; "
            "leave them out or feed larger images"
        )


def normalize_kernel_sizes(kernel_sizes: Iterable[tuple[int, int]]) -> KernelSizes:
    """Return `kernel_sizes` as a sorted tuple of (kh, kw); raises as `resolve_kernel_sizes`."""
    if not isinstance(kernel_sizes, Iterable):
        raise TypeError(f"kernel_sizes is {kernel_sizes!r}; {_PAIRS}")
    pairs = [_check_pair(pair) for pair in kernel_sizes]
    if not pairs:
        raise ValueError(
            "kernel_sizes is empty; give at least one (kh, kw), or None for every size but 1x1"
        )
    if len(set(pairs)) != len(pairs):
        repeated = sorted({pair for pair in pairs if pairs.count(pair) > 1})
        raise ValueError(
            f"kernel_sizes holds {repeated} more than once; rectangles weigh the same, "
            "so give each kernel size once"
        )
    return tuple(sorted(pairs))


def num_rectangles(height: int, width: int, kernel_sizes: KernelSizes) -> int:
    """Return how many rectangles the kernel sizes cut from a height x width map at stride 1."""
    return sum((height - kh + 1) * (width - kw + 1) for kh, kw in kernel_sizes)


def _check_pair(pair: object) -> tuple[int, int]:
    sides = [as_integer(side) for side in pair] if isinstance(pair, Iterable) else []
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        raise TypeError(f"kernel_sizes holds {pair!r}; {_PAIRS}")
    if sides[0] < 1 or sides[1] < 1:
        raise ValueError(f"kernel_sizes holds {pair}; each side must be at least 1")
    return sides[0], sides[1]
