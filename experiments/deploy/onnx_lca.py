"""LCA in the operators that onnxruntime runs fastest, for a map of fixed size.

The rectangles of height kh over columns [c, c + kw) have the means (P[b] - P[a]) / kh, b = a + kh,
where P is the mean of the columns, summed over the rows above. A depthwise convolution with the
weights -1 and +1, kh rows apart (its dilation), followed by ReLU and an average pooling, serves all
the rectangles of one height. Their cost does not depend on kh and kw. onnxruntime joins convolution
and ReLU and keeps a block of 8 or 16 channels together in memory for convolutions and poolings,
where elementwise operators on slices would copy the slices first. A difference is rounded once, so
a feature that no rectangle opens is exactly zero.

All widths share one tensor P, (D, H + 1, W(W+1)/2): G is convolved to prefix sums down the columns
and multiplied by a constant matrix of column bands, W x W(W+1)/2.

Milliseconds of CPU time of the operators for one photo, as onnxruntime 1.32 reports them, on one
core of an Intel Xeon (AVX-512, 2 cores), lower quartiles of 180 runs:

                              7x7x1280 (MobileNetV2)    13x13x512 (SqueezeNet 1.0)
    projection                0.93                      0.50
    prefix sums               0.03                      0.03
    bands                     0.06                      0.19
    reordering of channels    0.11                      0.27
    differences and ReLU      0.29                      1.41
    their means               0.09                      0.50
    weighing the means        0.03                      0.04

Milliseconds of CPU time of the whole network, lower quartiles of 80 runs that took turns, with
`python -m benchmarks.training.onnx_latency --threads 1 --backbone NAME --rounds 80`:

                     gap-fc    the projection alone    LCA
    mobilenet-v2     6.46      7.11 (x 1.10)           7.65 (x 1.18)
    squeezenet1-0    9.91      10.4 (x 1.05)           12.9 (x 1.30)

Other forms of the layer, to the time of this one at 7x7x1280 and 13x13x512, medians of 80 runs that
took turns: rows as slices that are subtracted x 1.38 and 2.00; ReduceMean for the average pooling
x 1.15 and 1.46; an average pooling of kh rows for prefix sums and differences x 0.99 and 1.15;
bands by an average pooling a width x 1.19 and 1.22; a matrix along each axis x 1.45 and 2.41.
Maxima of two rows less a linear function of P, x 0.98 and 0.97, cancel: at a bias of -1 they are
off by 2.9e-5 and 2.7e-4 where this form is by 3.5e-7 and 2.0e-7 (256 and 64 channels). They also
need a dilated max pooling, and OpenCV's classic engine ignores the dilation.
"""

from __future__ import annotations

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
    difference: Tensor
    coefficients: Tensor

    def __init__(self, lca: LCA, map_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = self.map_size = map_size
        sizes = resolve_kernel_sizes(height, width, lca.kernel_sizes)
        self.out_features = lca.out_features
        self.single_sizes, widths_of = _plan(sizes)
        self.heights = list(widths_of)

        weight = lca.weight.detach()
        self.register_buffer("weight", weight[:, :, None, None].clone())
        self.register_buffer("bias", None if lca.bias is None else lca.bias.detach().clone())
        self.register_buffer("column_sums", weight.new_ones(lca.out_features, 1, height, 1))
        widths = sorted(set().union(*widths_of.values()))
        self.register_buffer("bands", _bands(width, widths).to(weight))
        difference = weight.new_tensor([-1.0, 1.0]).view(1, 1, 2, 1)
        self.register_buffer("difference", difference.repeat(lca.out_features, 1, 1, 1))
        for kh, some in widths_of.items():
            selection = None if some == widths else _selection(width, widths, some).to(weight)
            self.register_buffer(f"selection_{kh}", selection)

        rectangles = num_rectangles(height, width, sizes)
        coefficients = [float(num_rectangles(height, width, (one,))) for one in self.single_sizes]
        coefficients += [
            num_rectangles(height, width, tuple((kh, kw) for kw in some)) / kh
            for kh, some in widths_of.items()
        ]
        self.register_buffer(
            "coefficients", weight.new_tensor([[value / rectangles for value in coefficients]])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, D) for a feature map (N, C, H, W)."""
        projection = F.conv2d(x, self.weight, self.bias)
        if self.single_sizes:
            return self._combine([_mean_relu(projection, size) for size in self.single_sizes])
        bands = self._prefix_sums(projection) @ self.bands
        return self._combine([self._mean_relu_of_bands(bands, kh) for kh in self.heights])

    def _prefix_sums(self, projection: Tensor) -> Tensor:
        """(N, D, H, W) -> (N, D, H + 1, W), sums over the first 0, 1, ... H rows."""
        padded = F.pad(projection, (0, 0, self.map_size[0], 0))
        return F.conv2d(padded, self.column_sums, groups=self.out_features)

    def _mean_relu_of_bands(self, bands: Tensor, kh: int) -> Tensor:
        """(N, D, H + 1, B) -> (N, D, 1, 1): mean relu of the differences of rows kh apart."""
        sums = F.conv2d(bands, self.difference, dilation=(kh, 1), groups=self.out_features)
        selection = getattr(self, f"selection_{kh}")
        if selection is None:
            return _mean(F.relu(sums))
        return F.avg_pool2d(F.relu(sums), (sums.shape[2], 1)) @ selection

    def _combine(self, means: list[Tensor]) -> Tensor:
        """Weigh k means (N, D, 1, 1) by their coefficients: (N, D)."""
        stacked = torch.cat(means, dim=1).reshape(-1, len(means), self.out_features)
        return (self.coefficients @ stacked).flatten(1)


def _plan(sizes: KernelSizes) -> tuple[list[tuple[int, int]], dict[int, list[int]]]:
    """Return kernel sizes to pool one by one, or else the widths of every height.

    One by one are those that fill less than half of the grid of their heights and widths.
    """
    widths_of: dict[int, list[int]] = {}
    for kh, kw in sorted(sizes):
        widths_of.setdefault(kh, []).append(kw)
    grid = len(widths_of) * len({kw for _, kw in sizes})
    return (list(sizes), {}) if 2 * len(sizes) <= grid else ([], widths_of)


def _bands(width: int, widths: list[int]) -> Tensor:
    """Return the means over every band of columns of these widths as a matrix (W, bands)."""
    columns = torch.arange(width)
    bands = [
        ((columns >= left) & (columns < left + kw)).double() / kw
        for kw in widths
        for left in range(width - kw + 1)
    ]
    return torch.stack(bands, dim=1) if bands else torch.zeros(width, 0, dtype=torch.float64)


def _selection(width: int, widths: list[int], some: list[int]) -> Tensor:
    """Return weights (bands, 1) that average the bands of some of the widths."""
    chosen = torch.tensor([kw in some for kw in widths for _ in range(width - kw + 1)]).double()
    return (chosen / chosen.sum()).unsqueeze(1)


def _mean_relu(projection: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, D, H, W) -> (N, D, 1, 1): mean over the rectangles of one kernel size."""
    concepts = F.avg_pool2d(projection, size, stride=1) if size != (1, 1) else projection
    return _mean(F.relu(concepts))


def _mean(rectified: Tensor) -> Tensor:
    """(N, D, H, W) -> (N, D, 1, 1)."""
    return F.avg_pool2d(rectified, (rectified.shape[2], rectified.shape[3]))
