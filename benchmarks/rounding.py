"""Float32 errors of the two ways to use an integral image: `python -m benchmarks.rounding`.

Where a trained feature's bias is negative most rectangles are negative too, the outputs are small,
and what cancels in a rectangle's sum shows. Relative errors against the reference in float64.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.accuracy import Oracle, relative_error
from benchmarks.peers import PEERS
from benchmarks.problem import Problem, make_problem
from benchmarks.shapes import shape

SIDES, BIASES = (7, 14, 28), (0.0, -1.0, -2.0)
_PEERS = ("four-corners", "lca-eager", "lca")
_N, _FEATURES = 2, 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounding", description=__doc__)
    parser.add_argument("--sides", nargs="+", type=int, default=SIDES, help="H = W of the maps")
    parser.add_argument("--biases", nargs="+", type=float, default=BIASES, help="of every feature")
    options = parser.parse_args(arguments)
    lines = [
        [f"{side}x{side}", f"{bias:g}", *(f"{error:.1e}" for error in errors(side, bias))]
        for side in options.sides
        for bias in options.biases
    ]
    headers = ["map", "bias", *(PEERS[peer].title for peer in _PEERS)]
    print(tabulate(lines, headers, tablefmt="github", disable_numparse=True))
    return 0


def errors(side: int, bias: float) -> list[float]:
    """Return the error of each of the peers' outputs for maps of this side and this bias."""
    drawn = make_problem(
        shape(side, side, _N, _FEATURES), torch.device("cpu"), torch.float32, "contiguous"
    )
    problem = Problem(drawn.shape, drawn.x, drawn.weight, torch.full_like(drawn.bias, bias))
    exact = Oracle(problem).results(torch.float64, training=False)["output"]
    return [relative_error(_output(peer, problem), exact) for peer in _PEERS]


def _output(peer: str, problem: Problem) -> Tensor:
    with torch.no_grad():
        return PEERS[peer].build(problem)()[problem.images][:, problem.features]


if __name__ == "__main__":
    sys.exit(main())
