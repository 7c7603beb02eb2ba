"""Rectangle pooling in torch operators: any device, any floating dtype, export and autograd.

The columns (n, d) of the projection are independent, and the rectangles of one height kh all
come from one array: the sums over bands of kh rows, prefix-summed along the width (one integral
image per band). A rectangle then costs one subtraction. Prefix sums along W alone round no worse
than W terms, where the corners of a 2D integral image would cancel H*W of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lca_fused.backends.projection import project
from lca_fused.backends.tracing import is_watched, not_traced, recorder
from lca_fused.rectangles import KernelSizes, num_rectangles, resolve_kernel_sizes

# A chunk of columns and its temporaries should stay in the last-level cache of a CPU core; on an
# accelerator fewer, larger launches win.
_CHUNK_BYTES = {"cpu": 8 << 20}
_ACCELERATOR_CHUNK_BYTES = 256 << 20


def local_concepts_accumulation(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_sizes: KernelSizes | None
) -> Tensor:
    """(N, C, H, W) -> (N, D): project all positions, H*W rows per image, and pool that."""
    if not torch.compiler.is_compiling() and (recorder() is not None or is_watched()):
        return _recordable(x, weight, bias, kernel_sizes)
    projection = project(x, weight, bias)  # (N, H, W, D)
    sizes = resolve_kernel_sizes(x.shape[2], x.shape[3], kernel_sizes)
    return rectangle_pooling(projection, sizes)


def rectangle_pooling(projection: Tensor, kernel_sizes: KernelSizes) -> Tensor:
    """Mean over all rectangles of relu(mean over the rectangle): (N, H, W, D) -> (N, D).

    Differentiable any number of times, in reverse and forward mode and under torch.func. Extra
    memory is one gate map, (N, H, W, D), when a gradient is wanted and nothing of that size
    otherwise.
    """
    if torch.compiler.is_compiling():
        # The compiler fuses, recomputes and differentiates the plain operators by itself.
        map_size = (projection.shape[1], projection.shape[2])
        return _pool(_accumulation(projection), map_size, kernel_sizes).to(projection.dtype)
    if torch.is_grad_enabled() and projection.requires_grad:
        pooled, _ = _GatedPooling.apply(projection, kernel_sizes)
        return pooled
    n, height, width, d = projection.shape
    pooled = projection.new_empty(n, d)
    for rows, columns in _chunks(projection):
        chunk = _accumulation(projection[rows, ..., columns])
        pooled[rows, columns] = _pool(chunk, (height, width), kernel_sizes)
    return pooled


def _recordable(
    x: Tensor, weight: Tensor, bias: Tensor | None, kernel_sizes: KernelSizes | None
) -> Tensor:
    """As `local_concepts_accumulation`, in operators that are right for batches of any size.

    Nothing in them is made of N: no chunks, and a convolution for the projection, as F.linear is
    taken down as a product of a fixed number of rows. H and W decide which operators there are.
    So they check them: a split is refused where its parts are not the whole.
    """
    with not_traced():
        height, width = int(x.shape[2]), int(x.shape[3])
        sizes = resolve_kernel_sizes(height, width, kernel_sizes)
    (x,) = x.split_with_sizes([height], 2)
    (x,) = x.split_with_sizes([width], 3)
    projection = F.conv2d(x, weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return _pool(_accumulation(projection), (height, width), sizes).to(projection.dtype)


class _GatedPooling(torch.autograd.Function):
    """Rectangle pooling that keeps the gate map M, its whole gradient.

    With M[n, p, d] = (1/R) * sum over rectangles r holding position p of 1[z_r > 0] / area(r),
    the output is sum_p M * G and its gradient with respect to G is M. M is piecewise constant in
    G, so differentiating these expressions again with M held fixed is exact.
    """

    @staticmethod
    def forward(projection: Tensor, kernel_sizes: KernelSizes) -> tuple[Tensor, Tensor]:
        gate = torch.empty_like(projection, memory_format=torch.contiguous_format)
        pooled = projection.new_empty(projection.shape[0], projection.shape[3])
        for rows, columns in _chunks(projection):
            chunk = _accumulation(projection[rows, ..., columns])
            chunk_gate = _gate_map(chunk, kernel_sizes)
            gate[rows, ..., columns] = chunk_gate
            sums = chunk_gate.mul_(chunk).sum(dim=(1, 2))
            # Rounding could leave less than zero of a column that hardly opens.
            pooled[rows, columns] = sums.clamp_(min=0) + _poison(chunk)
        return pooled, gate

    @staticmethod
    def setup_context(ctx: Any, _inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, gate = output
        ctx.mark_non_differentiable(gate)
        ctx.save_for_backward(gate)
        ctx.save_for_forward(gate)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (gate,) = ctx.saved_tensors
        return grad_outputs[0][:, None, None, :] * gate, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        (gate,) = ctx.saved_tensors
        return (tangents[0] * gate).sum(dim=(1, 2)), None

    @staticmethod
    def vmap(
        _info: Any, in_dims: tuple[int, None], projection: Tensor, kernel_sizes: KernelSizes
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        batched = projection.movedim(in_dims[0], 0)
        pooled, gate = _GatedPooling.apply(batched.flatten(0, 1), kernel_sizes)
        split = batched.shape[:2]
        return (pooled.unflatten(0, split), gate.unflatten(0, split)), (0, 0)


def _pool(g: Tensor, map_size: tuple[int, int], kernel_sizes: KernelSizes) -> Tensor:
    """(N, H, W, D) -> (N, D): mean over the rectangles of relu(mean over the rectangle)."""
    height, width = map_size  # numbers, where those of g.shape may be a tracer's tensors
    total = _poison(g)
    for kh, widths, prefix in _bands(g, kernel_sizes):
        for kw in widths:
            rectangles = prefix[:, :, kw:] - prefix[:, :, : width + 1 - kw]
            total = total + rectangles.relu().sum(dim=(1, 2)) / (kh * kw)
    return total / num_rectangles(height, width, kernel_sizes)


def _poison(g: Tensor) -> Tensor:
    """(N, H, W, D) -> (N, D): zero, or NaN for a column that holds NaN or an infinity.

    Infinities may cancel to NaN in a prefix sum or close a rectangle and so leave a plausible sum.
    """
    return g.sum(dim=(1, 2)) * 0


def _gate_map(g: Tensor, kernel_sizes: KernelSizes) -> Tensor:
    """(N, H, W, D) -> (N, H, W, D): M of `_GatedPooling`.

    A rectangle adds a constant to the positions it holds, that is, a step up and a step down
    along W and along H; the steps are collected first and summed up once per band and once at last.
    """
    n, height, width, d = g.shape
    row_steps = g.new_zeros(n, height + 1, width, d)
    for kh, widths, prefix in _bands(g, kernel_sizes):
        bands = height - kh + 1
        column_steps = g.new_zeros(n, bands, width + 1, d)
        for kw in widths:
            places = width - kw + 1
            open_gates = torch.gt(prefix[:, :, kw:], prefix[:, :, :places]).to(g.dtype)
            column_steps[:, :, :places].add_(open_gates, alpha=1 / (kh * kw))
            column_steps[:, :, kw:].sub_(open_gates, alpha=1 / (kh * kw))
        band_gate = column_steps[:, :, :width].cumsum(dim=2)
        row_steps[:, :bands] += band_gate
        row_steps[:, kh:] -= band_gate
    gate = row_steps[:, :height].cumsum(dim=1)
    return gate.div_(num_rectangles(height, width, kernel_sizes))


def _bands(g: Tensor, kernel_sizes: KernelSizes) -> Iterator[tuple[int, list[int], Tensor]]:
    """Yield, for every kernel height kh, the kernel widths and the bands' prefix sums along W.

    The prefix sums are (N, H - kh + 1, W + 1, D) and start with a zero.
    """
    tallest = max(kh for kh, _ in kernel_sizes)
    band = g
    for kh in range(1, tallest + 1):
        if kh > 1:
            band = band[:, :-1] + g[:, kh - 1 :]
        widths = [kw for height, kw in kernel_sizes if height == kh]
        if widths:
            yield kh, widths, F.pad(band.cumsum(dim=2), (0, 0, 1, 0))


def _accumulation(g: Tensor) -> Tensor:
    """Widen 16-bit numbers to float32; sums over rectangles are taken in float32 or float64."""
    return g if g.dtype == torch.float64 else g.float()


def _chunks(g: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield (images, columns) slices of (N, H, W, D) that fit the cache in the wide dtype."""
    n, height, width, d = g.shape
    budget = _CHUNK_BYTES.get(g.device.type, _ACCELERATOR_CHUNK_BYTES)
    column_bytes = height * width * max(4, g.element_size())
    columns = max(1, budget // column_bytes)
    images_step, columns_step = max(1, columns // max(1, d)), min(columns, max(1, d))
    for i in range(0, n, images_step):
        for j in range(0, d, columns_step):
            yield slice(i, i + images_step), slice(j, j + columns_step)
