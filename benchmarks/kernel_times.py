"""Where LCA's time on a GPU goes, kernel by kernel: `python -m benchmarks.kernel_times`.

Every kernel of a call as the profiler sees it; the gaps between them, which are the host's, are not
in these figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import INFERENCE, TRAINING
from benchmarks.machine import describe
from benchmarks.peers import FLOOR, PEERS
from benchmarks.problem import MEMORY_FORMATS, make_problem
from benchmarks.results import Row
from benchmarks.shapes import parse_shapes

_ROUNDS = 20
_BETWEEN_CALLS = "bitwise_not"  # flushes the L2 cache; nothing that is measured launches one


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the kernels of every call; return the process's exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.kernel_times profiles a GPU: torch finds none", file=sys.stderr)
        return 1
    device = torch.device("cuda")
    rows: list[Row] = []
    for shape in parse_shapes(options.shapes, "cuda"):
        for layout in options.memory_format:
            problem = make_problem(shape, device, torch.bfloat16, layout)
            for peer in (FLOOR, "lca-triton"):
                head = PEERS[peer].build(problem)
                for mode, call in ((INFERENCE, head.inference), (TRAINING, head.training)):
                    kernels = kernel_seconds(call, device)
                    row = {"shape": str(shape), "memory_format": layout, "mode": mode}
                    rows += [
                        {**row, "peer": peer, "kernel": name, "launches": count, "seconds": seconds}
                        for name, (count, seconds) in kernels.items()
                    ]
                if options.json is not None:  # as it comes, as compiling may take all the time
                    record = {**describe(device), "kernels": rows}
                    options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(table(rows))
    return 0


def kernel_seconds(
    call: Callable[[], object], device: torch.device
) -> dict[str, tuple[int, float]]:
    """Return the kernels of a call, by name, in the order of launches.

    Returns:
        How often a call launches each, and the seconds of all these launches, the median of calls.
    """
    l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    flush = torch.zeros(4 * l2_bytes, dtype=torch.int8, device=device)
    for _ in range(3):
        call()
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(_ROUNDS):
            flush.bitwise_not_()
            call()
        torch.cuda.synchronize(device)
    events = [event for event in profiler.events() if event.device_type.name == "CUDA"]
    calls: list[dict[str, list[float]]] = []
    for event in sorted(events, key=lambda event: event.time_range.start):
        if _BETWEEN_CALLS in event.name:
            calls.append(defaultdict(list))
        elif calls:
            calls[-1][event.name].append(event.time_range.elapsed_us() / 1e6)
    return {
        name: (len(calls[-1][name]), statistics.median(sum(each[name]) for each in calls))
        for name in calls[-1]
    }


def table(rows: Sequence[Row]) -> str:
    """Return a table in Markdown: a line for every kernel, a line for the sum of every call."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in ("shape", "memory_format", "mode", "peer"))].append(row)
    lines = []
    for group, kernels in groups.items():
        total = sum(row["seconds"] for row in kernels)
        lines.append([*group, "all kernels", "", f"{1e6 * total:.1f}"])
        lines += [
            ["", "", "", "", row["kernel"][:70], row["launches"], f"{1e6 * row['seconds']:.1f}"]
            for row in kernels
        ]
    headers = ["shape", "layout", "mode", "", "kernel", "launches", "us"]
    return str(tabulate(lines, headers, tablefmt="github", disable_numparse=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel_times", description=__doc__)
    parser.add_argument("--shapes", default="acceptance", help="as the suite's")
    parser.add_argument(
        "--memory-format",
        nargs="+",
        choices=sorted(MEMORY_FORMATS),
        default=["channels_last", "contiguous"],
        help="of the feature map (default: both)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all kernels' times")
    return parser


if __name__ == "__main__":
    sys.exit(main())
