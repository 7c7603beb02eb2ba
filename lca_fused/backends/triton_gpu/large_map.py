"""Rectangle pooling of maps of any size, band of rows by band of rows: see bands.py.

The bands are walked in loops and the rectangles of one band are unrolled, so neither registers nor
compile time grow with H. Wide maps are cut into chunks of columns: a rectangle across two is the
sum of a suffix of the first, the columns between, and a prefix of the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from lca_fused.backends.triton_gpu import dispatch
from lca_fused.backends.triton_gpu.dispatch import COLUMNS
from lca_fused.backends.triton_gpu.forward_bands import (
    add_parts_kernel,
    sum_across_kernel,
    sum_within_kernel,
)
from lca_fused.backends.triton_gpu.gate_bands import gate_whole_kernel
from lca_fused.backends.triton_gpu.gate_chunks import (
    gate_across_kernel,
    gate_finish_kernel,
    gate_within_kernel,
)
from lca_fused.backends.triton_gpu.launch import (
    Plan,
    accumulation,
    aligned,
    gpu_of,
    options,
    planned,
)
from lca_fused.backends.triton_gpu.tables import orientation, weight_tables
from lca_fused.rectangles import KernelSizes


def pool_large_map(
    projection: Tensor,
    pooled: Tensor,
    gate_map: Tensor | None,
    kernel_sizes: KernelSizes | None,
    *,
    halves: bool,
    splits: int | None = None,
) -> None:
    """Write (N, D) and, if given, the gate map of a contiguous projection (N, H, W, D).

    A column of the projection that holds NaN or an infinity is pooled to NaN.

    Args:
        projection: (N, H, W, D), floating point.
        pooled: (N, D), written.
        gate_map: (N, H * W, D) in the dtype of `projection`, written; or None.
        kernel_sizes: (kh, kw) pairs that fit the map; None means all but 1x1.
        halves: whether to sum up in packed halves: bfloat16 and even D only.
        splits: programs that share the top rows of a column, but for a gate map of whole bands,
            where one has them all; None for what `dispatch` chooses.
    """
    bands = _Bands.of(projection, kernel_sizes, gate_map is not None, halves)
    if gate_map is not None and len(bands.chunks) == 1:
        _pool_with_gate_map(bands, pooled, gate_map)
        return
    splits = splits or dispatch.splits(bands.columns, bands.height, gate=gate_map is not None)
    if gate_map is None:
        _pool(bands, pooled, splits)
    else:
        _pool_with_gate_map_in_chunks(bands, pooled, gate_map, splits)


@dataclass(frozen=True)
class _Bands:
    """What the launches of a call share. An element is a column, or two of them in halves."""

    values: Tensor  # the projection, in elements
    columns: int  # over all images, in elements
    height: int
    width: int
    chunks: list[int]  # their columns
    weights: tuple[Tensor, Tensor]  # of widths and of heights
    arguments: dict[str, Any]  # of the kernels, those that all launches share
    options: dict[str, Any]  # of the compiler

    @classmethod
    def of(
        cls, projection: Tensor, kernel_sizes: KernelSizes | None, gate: bool, halves: bool
    ) -> _Bands:
        transposed, height, width, kernel_sizes = orientation(*projection.shape[1:3], kernel_sizes)
        gpu = gpu_of(projection)
        chunks = dispatch.chunks(width, gate, dispatch.widest_chunk(gate, halves, gpu))
        summed_in = torch.float64 if projection.dtype == torch.float64 else torch.float32
        widths, heights, rectangles = weight_tables(
            height, width, kernel_sizes, projection.device, summed_in, halves
        )
        values = _pairs(projection) if halves else projection
        n, _, _, d = values.shape
        arithmetic = dispatch.arithmetic(projection.dtype, gpu)
        if halves or gate:  # whose sums are only compared
            arithmetic = "halves" if halves else "maximum"
        most = 4 * chunks[0] * height * width if halves else height * width
        return cls(
            values=values,
            columns=n * d,
            height=height,
            width=width,
            chunks=chunks,
            weights=(widths, heights),
            arguments={
                "columns": n * d,
                "H": height,
                "rectangles": rectangles,
                "D": d,
                "stride_h": d if transposed else width * d,
                "stride_w": height * d if transposed else d,
                "W": width,
                "ARITHMETIC": arithmetic,
                "DTYPE": accumulation(projection.dtype),
                "BLOCK": COLUMNS,
                "BOUND": (most - 1).bit_length(),
            },
            options=options(
                projection,
                COLUMNS,
                max_registers=dispatch.registers_of_bands(
                    width, gate, halves, projection.dtype, gpu
                ),
            ),
        )

    def launch(self, kernel: Any, *tensors: Tensor, programs: int = 1, **arguments: int) -> None:
        """Run a kernel, so many programs for every COLUMNS elements."""
        arguments = self.arguments | {"splits": programs} | arguments
        key = (
            kernel,
            programs,
            tensors[0].device,
            *((tensor.dtype, aligned(tensor)) for tensor in tensors),
            *arguments.values(),
        )
        grid = (-(-self.columns // COLUMNS), programs)
        planned(key, lambda: Plan(kernel, grid, arguments, self.options))(*tensors)

    def elements_of(self, gate_map: Tensor) -> Tensor:
        """The gate map as what the kernels load and store at a time."""
        return gate_map if self.values.dtype == gate_map.dtype else _pairs(gate_map)

    def memory_for_steps(self, gates: Tensor, splits: int = 1) -> Tensor:
        """As many as the gates, `splits` times; the gates' own where they hold enough digits."""
        in_16_bits = gates.dtype in (torch.float16, torch.bfloat16)
        if splits == 1 and not in_16_bits:
            return gates
        dtype = torch.float32 if in_16_bits else gates.dtype
        return gates.new_empty(splits, *gates.shape, dtype=dtype)

    def within(self) -> list[dict[str, int]]:
        """Every chunk: where it starts, and its size."""
        return [
            {"start": sum(self.chunks[:place]), "SIZE": size}
            for place, size in enumerate(self.chunks)
        ]

    def across(self) -> list[dict[str, int]]:
        """Every two chunks: where they start, and their sizes."""
        return [
            {"start": a["start"], "last": b["start"], "FIRST": a["SIZE"], "LAST": b["SIZE"]}
            for a, b in combinations(self.within(), 2)
        ]


def _pool(bands: _Bands, pooled: Tensor, splits: int) -> None:
    launches = [(sum_within_kernel, chunk) for chunk in bands.within()]
    launches += [(sum_across_kernel, pair) for pair in bands.across()]
    direct = len(launches) * splits == 1
    parts = pooled.unsqueeze(0) if direct else _parts(pooled, len(launches) * splits)
    for (kernel, chunks), part in zip(launches, parts.split(splits), strict=True):
        bands.launch(kernel, bands.values, part, *bands.weights, programs=splits, **chunks)
    if not direct:
        _add_parts(parts, pooled)


def _pool_with_gate_map(bands: _Bands, pooled: Tensor, gate_map: Tensor) -> None:
    gates = bands.elements_of(gate_map)
    steps = bands.memory_for_steps(gates)
    bands.launch(gate_whole_kernel, bands.values, pooled, gates, steps, *bands.weights)


def _pool_with_gate_map_in_chunks(
    bands: _Bands, pooled: Tensor, gate_map: Tensor, splits: int
) -> None:
    gates = bands.elements_of(gate_map)
    steps = bands.memory_for_steps(gates, splits).zero_()
    launches = [(gate_within_kernel, chunk) for chunk in bands.within()]
    launches += [(gate_across_kernel, pair) for pair in bands.across()]
    parts = _parts(pooled, len(launches) * splits)
    for (kernel, chunks), part in zip(launches, parts.split(splits), strict=True):
        bands.launch(kernel, bands.values, part, steps, *bands.weights, programs=splits, **chunks)
    last = {"CHUNK": bands.chunks[0], "SPLITS": splits}
    bands.launch(gate_finish_kernel, gates, steps, programs=bands.height, **last)
    _add_parts(parts, pooled)


def _pairs(tensor: Tensor) -> Tensor:
    """Pairs of neighbouring bfloat16 features as int32."""
    return tensor.view(torch.int32)


def _parts(pooled: Tensor, count: int) -> Tensor:
    """Memory for parts of the means, in the dtype of sums."""
    dtype = torch.float64 if pooled.dtype == torch.float64 else torch.float32
    return pooled.new_empty(count, pooled.numel(), dtype=dtype)


def _add_parts(parts: Tensor, pooled: Tensor) -> None:
    columns = pooled.numel()
    add_parts_kernel[(-(-columns // COLUMNS),)](
        parts, pooled, columns, len(parts), AT_ONCE=8, BLOCK=COLUMNS, **options(pooled, COLUMNS)
    )
