"""Which GPU kernel and which tile serve a call fastest: `python -m benchmarks.dispatch`.

Every path of the Triton backend, with every tile that autotuning would try, alternates with the
projection alone, both as replays of CUDA graphs where Python would take longer than the kernels.
`lca_fused/backends/triton_gpu/dispatch.py` holds what should come out first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from benchmarks import measure
from benchmarks.accuracy import relative_error
from benchmarks.cases import FORMATS, python_shows
from benchmarks.machine import describe
from benchmarks.problem import Problem, make_problem
from benchmarks.results import Row
from benchmarks.shapes import Shape, parse_shapes
from lca_fused.backends.projection import project
from lca_fused.backends.triton_gpu import dispatch, unavailable
from lca_fused.backends.triton_gpu.launch import gpu_of

# Most telling first, as a machine may be taken away: around where the paths change, and many.
SHAPES = ",".join(f"7x7-N{n}-C2048" for n in (1, 4, 8, 256, 2, 16, 32, 64))
ONE_LAUNCH, TWO_LAUNCHES = "one launch", "matmul, pooling"
# Paths round a projection differently; what is wrong is wrong by more.
_TOLERANCE = 0.02
_ROUNDS = 5


@dataclass(frozen=True)
class Variant:
    """One way to serve a call.

    Attributes:
        path: ONE_LAUNCH or TWO_LAUNCHES.
        tile: that of the one launch, or how pooling divides columns in registers; None where they
            do not fit.
        training: whether the gradient of the projection is taken, too.
    """

    shape: Shape
    dtype: str
    training: bool
    path: str
    tile: dispatch.Tile | dispatch.Columns | None
    chosen: bool = False
    """Whether this is what the library would do."""

    def __call__(self, problem: Problem) -> tuple[Tensor, ...]:
        """Return (N, D) and, for training, the gradient of the projection for dL/dy = 1."""
        from lca_fused.backends.triton_gpu import fused, pooling, small_map

        x, weight, bias = problem.x, problem.weight, problem.bias
        if isinstance(self.tile, dispatch.Tile):
            rows = x.permute(0, 2, 3, 1).contiguous()
            pooled, saved = fused.accumulate(rows, weight, bias, None, self.training, self.tile)
        elif isinstance(self.tile, dispatch.Columns):
            saved = project(x, weight, bias)
            pooled = saved.new_empty(saved.shape[0], saved.shape[3])
            small_map.pool_small_map(saved, pooled, None, self.tile)
        else:
            pooled, saved = pooling.pool(project(x, weight, bias), None, self.training)
        if not self.training:
            return (pooled,)
        assert saved is not None
        grad = torch.ones_like(pooled)
        if isinstance(self.tile, dispatch.Columns):
            return pooled, small_map.small_map_gradient(saved, grad, None, self.tile)[0]
        return pooled, pooling.projection_gradient(saved, grad, None)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the fastest variants of every shape; return the process's exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    probe = torch.empty(0, dtype=getattr(torch, options.dtype), device=device)
    if (reason := unavailable(probe)) is not None:
        print(f"benchmarks.dispatch times kernels on a GPU: {reason}", file=sys.stderr)
        return 1
    try:
        shapes = parse_shapes(options.shapes, device.type)
    except ValueError as error:
        parser.error(f"--shapes: {error}")
    found = [v for shape in shapes for v in variants(shape, options.dtype, options.mode, device)]
    if options.jobs > 1:
        compile_variants(found, device, options.jobs)
    rows: list[Row] = []
    for variant in tqdm(found, disable=None):
        rows.append(time_variant(variant, device, options.seconds))
        if options.json is not None:  # as it comes, or a machine that is taken away takes all
            record = {**describe(device), "variants": rows}
            options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(table(rows, options.best))
    return 0


def variants(
    shape: Shape, dtype: str, modes: Sequence[str], device: torch.device
) -> Iterator[Variant]:
    """Yield every way to serve calls of a shape, for "inference" and "training"."""
    torch_dtype = getattr(torch, dtype)
    probe = torch.empty(0, dtype=torch_dtype, device=device)
    side, gpu = (shape.height, shape.width), gpu_of(probe)
    for training in (mode == "training" for mode in modes):
        by_path: dict[str, Sequence[dispatch.Tile | dispatch.Columns | None]] = {}
        kept = dispatch.recomputes_gates if training else dispatch.in_registers
        if kept(*side, torch_dtype, gpu):
            columns = dispatch.columns_of(shape.n, shape.d, torch_dtype, gpu)
            plain = replace(columns, arithmetic=dispatch.arithmetic(torch_dtype, gpu))
            by_path[TWO_LAUNCHES] = [
                columns,
                *dispatch.columns_candidates(columns),
                *dispatch.columns_candidates(plain),
            ]
            one = dispatch.one_launch_tile(shape.n, shape.d, *side, probe.element_size(), gpu)
            by_path[ONE_LAUNCH] = [one, *dispatch.one_launch_candidates(one)]
        else:
            by_path[TWO_LAUNCHES] = [None]
        one_launch = dispatch.one_launch(shape.n, *side, torch_dtype, training, gpu)
        taken = ONE_LAUNCH if one_launch else TWO_LAUNCHES
        for path, tiles in by_path.items():
            for tile in dict.fromkeys(tiles):
                chosen = path == taken and tile == tiles[0]
                yield Variant(shape, dtype, training, path, tile, chosen)


def compile_variants(found: Sequence[Variant], device: torch.device, jobs: int) -> None:
    """Fill Triton's cache, which the processes share, so that timing need not wait for it."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        runs = pool.map(partial(_failure, device=device), found, chunksize=8)
        list(tqdm(runs, "compiling", total=len(found), disable=None))


def time_variant(variant: Variant, device: torch.device, seconds: float) -> Row:
    """Return the variant, and its time and that of the projection alone, or why there is none."""
    row: Row = {**asdict(variant), "error": _failure(variant, device)}
    if row["error"] is None:
        problem = _problem(variant.shape, variant.dtype, device)
        floor: measure.Call = partial(
            torch.nn.functional.linear, problem.rows, problem.weight, problem.bias
        )
        call: measure.Call = partial(variant, problem)
        with torch.no_grad():
            if python_shows(device.type, variant.shape):
                floor, call = (measure.captured(each, device) for each in (floor, call))
            timings = measure.interleave(
                floor,
                call,
                measure.make_stopwatch(device),
                seconds=seconds,
                least_rounds=_ROUNDS,
            )
        row |= timings.summary()
    return row


def table(rows: Sequence[Row], best: int) -> str:
    """Return the `best` fastest variants of every shape and mode, and the library's choice."""
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(Shape(**row["shape"])), row["training"]), []).append(row)
    lines = []
    for (shape, training), group in groups.items():
        timed = sorted((row for row in group if row["error"] is None), key=lambda row: row["ratio"])
        failed = [row for row in group if row["error"] is not None and row["chosen"]]
        shown = [row for place, row in enumerate(timed) if place < best or row["chosen"]]
        mode = "training" if training else "inference"
        lines += [[shape, mode, *_cells(row)] for row in shown + failed]
    headers = ["shape", "mode", "path", "tile", "us", "time / projection", "library's"]
    return str(tabulate(lines, headers, tablefmt="github", disable_numparse=True))


def _cells(row: Row) -> list[str]:
    tile = row["tile"]
    short = "-" if tile is None else ", ".join(f"{key} {value}" for key, value in tile.items())
    if row["error"] is not None:
        return [row["path"], short, row["error"], "-", "yes"]
    time, ratio = f"{1e6 * row['seconds'][1]:.1f}", f"{row['ratio']:.3f}"
    return [row["path"], short, time, ratio, "yes" if row["chosen"] else ""]


def _failure(variant: Variant, device: torch.device) -> str | None:
    """Run a variant once; return what went wrong, if anything did."""
    problem = _problem(variant.shape, variant.dtype, device)
    expected = _expected(variant.shape, variant.dtype, variant.training, device)
    try:
        with torch.no_grad():
            results = variant(problem)
    except Exception as error:  # out of registers or shared memory: no choice on this GPU
        return f"{type(error).__name__}: {error}"
    pairs = zip(results, expected, strict=True)
    errors = [relative_error(a, b) for a, b in pairs]
    wrong = not max(errors) <= _TOLERANCE
    return f"wrong result: relative error {max(errors):.1e}" if wrong else None


@lru_cache(maxsize=1)
def _problem(shape: Shape, dtype: str, device: torch.device) -> Problem:
    return make_problem(shape, device, getattr(torch, dtype), FORMATS["cuda"])


@lru_cache(maxsize=1)
def _expected(shape: Shape, dtype: str, training: bool, device: torch.device) -> tuple[Tensor, ...]:
    from lca_fused.backends.triton_gpu import pooling

    problem = _problem(shape, dtype, device)
    with torch.no_grad():
        projection = project(problem.x, problem.weight, problem.bias)
        pooled, saved = pooling.pool(projection, None, training)
        if saved is None:
            return (pooled,)
        return pooled, pooling.projection_gradient(saved, torch.ones_like(pooled), None)[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dispatch", description=__doc__)
    parser.add_argument("--shapes", default=SHAPES, help=f"as the suite's (default: {SHAPES})")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument(
        "--mode",
        nargs="+",
        default=("inference", "training"),
        choices=("inference", "training"),
        help="forward alone, or with the gradient of the projection (default: both)",
    )
    parser.add_argument("--seconds", type=float, default=0.1, help="of timing, per variant")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile (default: 1)")
    parser.add_argument("--best", type=int, default=3, help="variants shown of every shape")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all variants' times")
    return parser


if __name__ == "__main__":
    sys.exit(main())
