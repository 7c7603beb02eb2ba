"""Milliseconds of a query to a gallery, and its memory, on this machine's CPU.

    python -m benchmarks.gallery                      # 100,000 vectors of 1,280 numbers
    python -m benchmarks.gallery --vectors 200000     # above the limit faiss finds them, if it can

The vectors are noise around the products' own directions; nothing but the search is timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lca_fused import Gallery

_NOISE = 0.5  # its length beside the product's direction


def main() -> None:
    """Time what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--per-product", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    torch.manual_seed(0)
    products = torch.arange(options.vectors) // options.per_product
    directions = F.normalize(torch.randn(int(products[-1]) + 1, options.features), dim=1)
    names = [str(number) for number in range(len(directions))]
    gallery = Gallery(_noisy(directions[products]), products, names)
    of = torch.randint(len(directions), (100,))
    queries = _noisy(directions[of])
    with torch.inference_mode():
        start = time.perf_counter()
        gallery(queries[:1])
        print(f"first query: {time.perf_counter() - start:.1f} s")
        times = _times(lambda: gallery(queries[:1]), options.rounds)
        right = (gallery(queries).argmax(dim=1) == of).float().mean()
        exact = (gallery.products[gallery.cosines(queries).argmax(dim=1)] == of).float().mean()
    megabytes = sum(t.numel() * t.element_size() for t in gallery.buffers()) / 1e6
    print(
        f"{len(gallery)} vectors of {options.features}, {torch.get_num_threads()} threads: a query "
        f"{statistics.median(times):.1f} ms (median of {len(times)}), {megabytes:.0f} MB; the "
        f"right product first {right:.0%}, by exact search {exact:.0%}"
    )


def _noisy(directions: Tensor) -> Tensor:
    return directions.add(F.normalize(torch.randn_like(directions), dim=1), alpha=_NOISE)


def _times(run: Callable[[], Tensor], rounds: int) -> list[float]:
    """Return milliseconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return times


if __name__ == "__main__":
    main()
