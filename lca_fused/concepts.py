"""The local concepts of one image: what each rectangle of its map adds to a logit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lca_fused.integers import integer
from lca_fused.rectangles import KernelSizes, num_rectangles


@dataclass(frozen=True, eq=False)
class RectangleContributions:
    """Rectangles of one image's map and what each adds to the logit; R of them.

    Attributes:
        top: first row, (R,) int32, in positions of the map.
        left: first column, (R,) int32, in positions.
        kh: height, (R,) int32, in positions.
        kw: width, (R,) int32, in positions.
        contribution: what the rectangle adds to the logit, (R,).
        map_size: (H, W) of the map.
        input_size: (height, width) of the image, in pixels.
    """

    top: Tensor
    left: Tensor
    kh: Tensor
    kw: Tensor
    contribution: Tensor
    map_size: tuple[int, int]
    input_size: tuple[int, int]

    def __len__(self) -> int:
        return self.contribution.shape[0]

    @property
    def boxes(self) -> Tensor:
        """(R, 4) int32, left, top, right and bottom in positions; right and bottom are outside."""
        return torch.stack([self.left, self.top, self.left + self.kw, self.top + self.kh], dim=1)

    @property
    def pixel_boxes(self) -> Tensor:
        """(R, 4) float32, left, top, right and bottom in pixels of the image.

        The map is laid over the image as a grid of equal cells. A convnet's receptive fields are
        centred near their cells and reach beyond them.
        """
        x_scale = self.input_size[1] / self.map_size[1]
        y_scale = self.input_size[0] / self.map_size[0]
        return self.boxes * self.boxes.new_tensor(
            [x_scale, y_scale, x_scale, y_scale], dtype=torch.float32
        )

    def top_rectangles(self, k: int, max_overlap: float = 0.1) -> RectangleContributions:
        """Return the k rectangles that add most and do not cover each other.

        Greedy non-maximum suppression: the best rectangle is taken, those that overlap it by more
        than `max_overlap` are dropped, and again. Rectangles that add nothing or less are never
        taken, so there may be fewer than k. One choice costs some passes over all rectangles.

        Args:
            k: the greatest number of rectangles to return; at least 1.
            max_overlap: greatest intersection over union of any two of them, 0 to 1.

        Returns:
            The chosen, the largest contribution first; of equal ones the first.

        Raises:
            ValueError: k or max_overlap is out of its range.
            TypeError: k is not an integer.
        """
        k = integer("k", k)
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1")
        if not 0 <= max_overlap <= 1:
            raise ValueError(f"max_overlap is {max_overlap}; expected 0 to 1")
        remaining = self.contribution.clamp(min=0)
        chosen: list[int] = []
        while len(chosen) < min(k, len(self)):
            best = int(remaining.argmax())
            if remaining[best] <= 0:
                break
            chosen.append(best)
            remaining[self._overlaps(best, max_overlap)] = 0
            remaining[best] = 0  # a rectangle never overlaps itself by more than 1
        return self._select(chosen)

    def _overlaps(self, index: int, max_overlap: float) -> Tensor:
        """Return which rectangles overlap one of them by more than `max_overlap`, (R,) bool."""
        rows = _shared(self.top, self.kh, index)
        intersection = rows * _shared(self.left, self.kw, index)
        areas = self.kh * self.kw
        return intersection > max_overlap * (areas + areas[index] - intersection)

    def _select(self, indices: list[int]) -> RectangleContributions:
        chosen = torch.tensor(indices, dtype=torch.int64, device=self.contribution.device)
        return RectangleContributions(
            self.top[chosen],
            self.left[chosen],
            self.kh[chosen],
            self.kw[chosen],
            self.contribution[chosen],
            self.map_size,
            self.input_size,
        )


def contributions_of(
    projection: Tensor,
    class_weight: Tensor,
    kernel_sizes: KernelSizes,
    input_size: tuple[int, int],
) -> RectangleContributions:
    """Return relu(z_r) . class_weight / R for every rectangle r of one image.

    The rectangles come in the order of their kernel sizes, then of top, then of left. For each
    rectangle and feature that is a subtraction, a comparison and a multiply-add; the tensors in
    between hold one kernel size, at most 4*H*(W+1)*D bytes in float32, and pass the cache three
    times. At 56x56 with D = 512 that is 1.3e9 subtractions through tensors of up to 6.5 MB.

    Args:
        projection: the image's projection G, (H, W, D).
        class_weight: (D,), in the dtype of `projection`.
        kernel_sizes: (kh, kw) pairs that fit the map.
        input_size: (height, width) of the image, in pixels.
    """
    height, width, _ = projection.shape
    contributions = [
        torch.mv(sums.relu_().flatten(0, 1), class_weight).div_(kh * kw)
        for kh, kw, sums in _rectangle_sums(projection, kernel_sizes)
    ]
    contribution = torch.cat(contributions).div_(num_rectangles(height, width, kernel_sizes))
    places = _places(height, width, kernel_sizes, projection.device)
    return RectangleContributions(*places, contribution, (height, width), input_size)


def _rectangle_sums(
    projection: Tensor, kernel_sizes: KernelSizes
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield each kernel size and the sums over its rectangles, (H - kh + 1, W - kw + 1, D).

    `kernel_sizes` are sorted. The sums over bands of kh rows, prefix-summed along the width, make
    a rectangle one subtraction.
    """
    width = projection.shape[1]
    band, band_height = projection, 1
    prefix = _prefix_sums(band)
    for kh, kw in kernel_sizes:
        if kh > band_height:
            for row in range(band_height, kh):
                band = band[:-1] + projection[row:]
            prefix, band_height = _prefix_sums(band), kh
        yield kh, kw, prefix[:, kw:] - prefix[:, : width + 1 - kw]


def _prefix_sums(band: Tensor) -> Tensor:
    """(rows, W, D) -> (rows, W + 1, D), sums of the first 0, 1, ... W columns."""
    return F.pad(band.cumsum(dim=1), (0, 0, 1, 0))


def _places(
    height: int, width: int, kernel_sizes: KernelSizes, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return top, left, kh and kw of every rectangle, each (R,) int32."""
    places = [
        torch.meshgrid(
            torch.arange(height - kh + 1, dtype=torch.int32),
            torch.arange(width - kw + 1, dtype=torch.int32),
            indexing="ij",
        )
        for kh, kw in kernel_sizes
    ]
    counts = torch.tensor([top.numel() for top, _ in places])
    kh, kw = torch.tensor(kernel_sizes, dtype=torch.int32).unbind(1)
    parts = (
        torch.cat([top.flatten() for top, _ in places]),
        torch.cat([left.flatten() for _, left in places]),
        kh.repeat_interleave(counts),
        kw.repeat_interleave(counts),
    )
    top, left, kh, kw = (part.to(device) for part in parts)
    return top, left, kh, kw


def _shared(start: Tensor, length: Tensor, index: int) -> Tensor:
    """Return how many positions each interval shares with one of them, (R,)."""
    end = start + length
    first = start.clamp(min=int(start[index]))
    last = end.clamp(max=int(end[index]))
    return (last - first).clamp(min=0)
