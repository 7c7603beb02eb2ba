"""LCA in the operators that onnxruntime runs fastest, for a map of fixed size.

The rectangles of height kh over columns [c, c + kw) have the means (P[b] - P[a]) / kh, b = a + kh,
where P is the mean of the columns, summed over the rows above. As

    relu(P[b] - P[a]) = max(P[a], P[b]) - P[a],

the sum over all rectangles is a sum of maxima, less a fixed linear function of P: a max pooling of
two rows, kh apart (its dilation), followed by an average pooling, serves all the rectangles of one
height. Their cost does not depend on kh and kw. onnxruntime keeps a block of 8 or 16 channels
together in memory for convolutions and poolings, which makes both one vector instruction a
rectangle, where elementwise operators on slices would copy the slices first.

All widths share one tensor P, (D, H + 1, W(W+1)/2): G is convolved to prefix sums down the columns
and multiplied by a constant matrix of column bands, W x W(W+1)/2.

What that is for one photo: products, bytes read and written, the time these would take at 50 G
products and 80 GB a second (the rates of large matrix products and of the L2 cache there), and the
time onnxruntime 1.32 reports for the operators, on one core of an AMD EPYC (AVX-512, 1 MB of L2):

                   7x7x1280 (MobileNetV2)             13x13x512 (SqueezeNet 1.0)
                   products  MB   at rates  measured  products  MB   at rates  measured
    projection     80 M      7.0  1.6 ms    1.5 ms    44 M      1.7  0.9 ms    0.8 ms
    prefix sums    0.3 M     0.5  0.01      0.03      0.6 M     0.7  0.01      0.05
    bands          2.0 M     1.4  0.04      0.07      8.5 M     3.0  0.17      0.3
    linear part    0.1 M     0.3  0.00      0.03      0.1 M     0.4  0.00      0.04
    reordering     -         2.9  0.04      0.13      -         6.0  0.07      0.27
    maxima         1.0 M     12   0.15      0.15      4.2 M     51   0.64      0.65
    their means    1.0 M     4    0.05      0.08      4.2 M     17   0.21      0.27

Milliseconds of CPU time of the whole network, lower quartile of runs that took turns, with
`python -m experiments.deploy.onnx_latency --threads 1 --backbone NAME`:

                      gap-fc    the projection alone    LCA
    mobilenet-v2      7.83      9.01 (x 1.15)           9.47 (x 1.21)
    squeezenet1-0     14.8      15.5 (x 1.05)           17.3 (x 1.17)
    resnet50          81.3      84.3 (x 1.04)           84.9 (x 1.04)

Medians of elapsed time with two threads: x 1.19, 1.17 and 1.05, the projection alone x 1.12, 1.05
and 1.04; with ResNeXt-101 32x8d, the paper's backbone, x 1.02 and 1.01.

MobileNetV2 is 300 M products, so a projection at the speed of the machine's matrix products costs
15 % before the first rectangle. Other formulations, measured once and not kept, to gap-fc: all
rectangles as one matrix, 735 x 49, then ReLU and mean, x 1.42; a matrix along each axis, then ReLU
and mean, x 1.35 (SqueezeNet: x 2.7); P made in (N, H, W, D), channels moved first afterwards,
x 1.24.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lca_fused import LCA
from lca_fused.rectangles import KernelSizes, num_rectangles, resolve_kernel_sizes


class FixedSizeLCA(nn.Module):
    """What an `LCA` layer computes, for maps of one size and for inference.

    Args:
        lca: the layer; its parameters are copied.
        map_size: (H, W) of the maps, in positions.

    Shape:
        (N, C, H, W) -> (N, D), in the dtype of the layer.

    Raises:
        ValueError: the layer's kernel sizes do not fit the map.
    """

    weight: Tensor
    bias: Tensor | None
    column_sums: Tensor
    bands: Tensor
    linear: Tensor
    coefficients: Tensor

    def __init__(self, lca: LCA, map_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = self.map_size = map_size
        sizes = resolve_kernel_sizes(height, width, lca.kernel_sizes)
        rectangles = num_rectangles(height, width, sizes)
        self.heights, widths, self.single_sizes, sign = _plan(sizes)
        self.out_features = lca.out_features

        weight = lca.weight.detach()
        self.register_buffer("weight", weight[:, :, None, None].clone())
        self.register_buffer("bias", None if lca.bias is None else lca.bias.detach().clone())
        self.register_buffer("column_sums", weight.new_ones(lca.out_features, 1, height, 1))
        bands = _bands(width, widths)
        self.register_buffer("bands", bands.to(weight))
        self.register_buffer(
            "linear", _linear_weights(height, self.heights, bands, rectangles).to(weight)
        )
        coefficients = [(height + 1 - kh) * bands.shape[1] / kh for kh in self.heights]
        coefficients += [sign * num_rectangles(height, width, (one,)) for one in self.single_sizes]
        self.register_buffer(
            "coefficients", weight.new_tensor([[value / rectangles for value in coefficients]])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, D) for a feature map (N, C, H, W)."""
        projection = F.conv2d(x, self.weight, self.bias)
        means = [_mean_relu(projection, size) for size in self.single_sizes]
        if not self.heights:
            return self._combine(means)
        prefix = self._prefix_sums(projection)
        bands = prefix @ self.bands
        maxima = [_mean_maximum(bands, kh) for kh in self.heights]
        return self._combine(maxima + means) - (prefix.flatten(2) @ self.linear).flatten(1)

    def _prefix_sums(self, projection: Tensor) -> Tensor:
        """(N, D, H, W) -> (N, D, H + 1, W), sums over the first 0, 1, ... H rows."""
        padded = F.pad(projection, (0, 0, self.map_size[0], 0))
        return F.conv2d(padded, self.column_sums, groups=self.out_features)

    def _combine(self, means: list[Tensor]) -> Tensor:
        """Weigh k means (N, D, 1, 1) by their coefficients: (N, D)."""
        stacked = torch.cat(means, dim=1).reshape(-1, len(means), self.out_features)
        return (self.coefficients @ stacked).flatten(1)


def _plan(sizes: KernelSizes) -> tuple[list[int], list[int], list[tuple[int, int]], float]:
    """Return heights and widths of a grid of kernel sizes, single sizes, and their sign.

    The kernel sizes are the grid without the single ones (-1), or, where they fill less than half
    of their grid, the single ones alone (+1). The paper's are the full grid without 1x1.
    """
    heights = sorted({kh for kh, _ in sizes})
    widths = sorted({kw for _, kw in sizes})
    missing = [size for size in product(heights, widths) if size not in sizes]
    if len(missing) < len(sizes):
        return heights, widths, missing, -1.0
    return [], [], list(sizes), 1.0


def _bands(width: int, widths: list[int]) -> Tensor:
    """Return the means over every band of columns of these widths as a matrix (W, bands)."""
    columns = torch.arange(width)
    bands = [
        ((columns >= left) & (columns < left + kw)).double() / kw
        for kw in widths
        for left in range(width - kw + 1)
    ]
    return torch.stack(bands, dim=1) if bands else torch.zeros(width, 0, dtype=torch.float64)


def _linear_weights(height: int, heights: list[int], bands: Tensor, rectangles: int) -> Tensor:
    """Return the weight ((H + 1) * W, 1) of every prefix sum in the mean of P[a] / kh."""
    rows = torch.tensor(
        [sum(1 / kh for kh in heights if top + kh <= height) for top in range(height + 1)],
        dtype=torch.float64,
    )
    return torch.outer(rows, bands.sum(dim=1)).reshape(-1, 1) / rectangles


def _mean_maximum(bands: Tensor, kh: int) -> Tensor:
    """(N, D, H + 1, B) -> (N, D, 1, 1): mean of the greater of every two rows kh apart."""
    maxima = F.max_pool2d(bands, (2, 1), stride=1, dilation=(kh, 1))
    return F.avg_pool2d(maxima, (bands.shape[2] - kh, bands.shape[3]))


def _mean_relu(projection: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, D, H, W) -> (N, D, 1, 1): mean over the rectangles of one kernel size."""
    concepts = F.avg_pool2d(projection, size, stride=1) if size != (1, 1) else projection
    rectified = F.relu(concepts)
    return F.avg_pool2d(rectified, (rectified.shape[2], rectified.shape[3]))
