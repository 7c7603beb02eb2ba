"""Where LCA's time over F.linear goes on a CPU: `python -m benchmarks.overhead [--batch 16]`.

The projection streams its weights through the caches (16 MB at C = D = 2048), and what follows it
starts with cold ones: that, not the arithmetic, is most of the overhead of a single image.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from tabulate import tabulate

from benchmarks import host
from lca_fused import LCA
from lca_fused.backends import numba_cpu
from lca_fused.backends.projection import project

_WARM_UP = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the medians; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", type=int, default=7, help="of the map, in positions")
    parser.add_argument("--features", type=int, default=2048, help="C and D")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument(
        "--host",
        action="store_true",
        help="instead, what a call of the GPU backend costs in Python; needs triton, but no GPU, "
        "and heeds --rounds alone",
    )
    options = parser.parse_args(arguments)
    if options.host:
        return host.main(options.rounds)
    parts = measure(options.batch, options.side, options.features, options.rounds)
    lines = [(name, f"{1e6 * seconds:.0f}") for name, seconds in parts.items()]
    print(tabulate(lines, headers=["", "microseconds"], tablefmt="github"))
    return 0


def measure(batch: int, side: int, features: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of the layer and of its parts, for a contiguous (NCHW) map.

    Args:
        batch: N, the number of images.
        side: H = W, in positions.
        features: C and D.
        rounds: calls of each part; parts alternate.
    """
    layer = LCA(features, backend="numba")
    weight, bias = layer.weight, layer.bias
    x = torch.randn(batch, features, side, side)
    rows = x.permute(0, 2, 3, 1).reshape(-1, features).contiguous()
    projection = project(x, weight, bias)
    few = LCA(16, backend="numba")
    few_x = torch.randn(batch, 16, side, side)
    in_turn: dict[str, Callable[[], object]] = {
        "F.linear on rows laid out for it (the floor)": lambda: F.linear(rows, weight, bias),
        "the layer's projection": lambda: project(x, weight, bias),
        "pooling, right after a projection": lambda: numba_cpu.pooled(projection, None),
        "projection again": lambda: project(x, weight, bias),
        "the layer": lambda: layer(x),
    }
    alone: dict[str, Callable[[], object]] = {
        "the transposing copy of x": lambda: x.permute(0, 2, 3, 1).flatten(0, 2),
        "pooling, its data and code in cache": lambda: numba_cpu.pooled(projection, None),
        "a layer of 16 features: what is not arithmetic, in cache": lambda: few(few_x),
    }
    with torch.no_grad():
        parts = _medians(in_turn, rounds)
        for name, call in alone.items():
            parts |= _medians({name: call}, rounds)
    return parts


def _medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_WARM_UP + rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[_WARM_UP:]) for name, times in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
