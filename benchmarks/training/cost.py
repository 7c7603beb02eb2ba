"""Prints what a training step costs, head by head on one backbone.

python -m benchmarks.training.cost --backbone resnext101-32x8d --heads gap lca --batch-size 2
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from tabulate import tabulate

from benchmarks.training.step_cost import CLASSES, ROUNDS, StepCost, step_costs
from experiments.console import set_up_console
from experiments.storage import save_json
from experiments.training.device import Compute, Precision, device_name, resolve_compute
from experiments.training.recipe import Recipe


@dataclass(frozen=True)
class Options:
    """Time and peak memory of a training step, head by head."""

    backbone: str = "resnext101-32x8d"
    """Network, by name; see lca_fused/backbones.py."""
    heads: tuple[str, ...] = ("gap", "gap-fc", "gem", "rmac", "lca")
    """Keys of lca_fused/heads.py, or "lca-reference"; ratios are to the first one."""
    weights: Path | None = None
    """File of the backbone's weights; default: random ones, which take as long."""
    batch_size: int = 16
    """Photos per step."""
    accumulate: int = 1
    """The number of parts that a step is computed in."""
    image_size: int = 224
    """Side of the photos, in pixels."""
    classes: int = CLASSES
    """Number of classes."""
    rounds: int = ROUNDS
    """Measured steps per head."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """Precision of matrix products."""
    json: Path | None = None
    """File the figures go to, with the machine they are of."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table; return the exit status."""
    set_up_console()
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.training.cost")
    try:
        compute = resolve_compute(options.device, options.precision)
        recipe = Recipe(
            batch_size=options.batch_size,
            accumulate=options.accumulate,
            image_size=options.image_size,
        )
        costs = step_costs(
            options.backbone,
            options.weights,
            options.heads,
            recipe,
            compute,
            classes=options.classes,
            rounds=options.rounds,
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except torch.cuda.OutOfMemoryError as error:
        advice = "use a smaller --batch-size, a larger --accumulate, or fewer --heads"
        print(f"error: {error}\n{advice}", file=sys.stderr)
        return 2
    print(to_table(costs))
    if options.json is not None:
        record = {"settings": _plain(options), "machine": _machine(compute)}
        save_json(record | {"heads": {k: asdict(v) for k, v in costs.items()}}, options.json)
    return 0


def to_table(costs: dict[str, StepCost]) -> str:
    """Return the costs as a Markdown table; ratios, round by round, are to the first of them."""
    name, floor = next(iter(costs.items()))
    lines = [
        (
            head,
            f"{1e3 * cost.seconds:.1f}",
            " to ".join(f"{1e3 * seconds:.1f}" for seconds in cost.quartiles),
            f"{cost.ratio(floor):.3f}",
            " to ".join(f"{ratio:.3f}" for ratio in cost.ratio_quartiles(floor)),
            f"{cost.images_per_second:.2f}",
            f"{cost.peak_bytes / 2**20:.0f}",
            f"{cost.parameters / 1e6:.1f}",
        )
        for head, cost in costs.items()
    ]
    headers = (
        *("head", "ms per step", "quartiles", f"x {name}", "quartiles"),
        *("images/s", "peak MiB", "M parameters"),
    )
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def _plain(options: Options) -> dict[str, Any]:
    given = asdict(options)
    del given["json"]
    # A file's folder says nothing about the measurement.
    given["weights"] = None if options.weights is None else options.weights.name
    return given


def _machine(compute: Compute) -> dict[str, Any]:
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "device": device_name(compute.device),
        "precision": str(compute.precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "load_average": load,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
