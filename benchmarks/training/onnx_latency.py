"""What LCA adds to the time of an exported network, photo by photo.

    python -m benchmarks.training.onnx_latency --backbone mobilenet-v2 --threads 2

Times ONNX files of one backbone under three heads in turn, in onnxruntime at batch 1: gap-fc (the
parameters of LCA on one position), the projection alone (every position, no rectangles) and LCA.
With --threads 1 the clock is CPU time, which other programs on the machine hardly change.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import trange

from experiments.console import set_up_console
from experiments.deploy.onnx_export import OnnxClassifier, export_onnx
from experiments.networks.model import new_classifier
from lca_fused import LCA
from lca_fused.backbones import find_backbone
from lca_fused.heads import HEADS


@dataclass(frozen=True)
class Options:
    """What is timed."""

    backbone: str = "mobilenet-v2"
    """Network, by name, with random weights, which take as long; see lca_fused/backbones.py."""
    image_size: int = 224
    """Side of the photos, in pixels."""
    classes: int = 31
    """Number of classes."""
    threads: int = 2
    """Threads that share an operator; with 1 CPU time is measured, with more elapsed time."""
    rounds: int = 200
    """Runs of each network."""

    def __post_init__(self) -> None:
        find_backbone(self.backbone)
        for name in ("image_size", "classes", "threads", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; expected at least 1")


class Projection(nn.Module):
    """LCA's linear layer on every position, and their mean: LCA without its rectangles.

    (N, C, H, W) -> (N, D).
    """

    def __init__(self, lca: LCA) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(lca.in_features, lca.out_features, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over positions of relu(linear(position))."""
        concepts = self.convolution(x).relu()
        return nn.functional.avg_pool2d(concepts, concepts.shape[2:]).flatten(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table that `arguments` (default: the command line) ask for."""
    set_up_console()
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.training.onnx_latency")
    with tempfile.TemporaryDirectory() as folder:
        networks = export_networks(options, Path(folder))
        times = measure(networks, options)
    print(table(times))


def export_networks(options: Options, folder: Path) -> dict[str, OnnxClassifier]:
    """Return one untrained backbone under each head, as ONNX files run it."""
    torch.manual_seed(0)
    network = find_backbone(options.backbone).at(options.image_size).build()
    networks = {}
    for name in ("gap-fc", "projection", "lca"):
        head = name if name in HEADS else "lca"
        model = new_classifier(
            copy.deepcopy(network), head, options.classes, options.image_size
        ).eval()
        if name == "projection":
            assert isinstance(model.pool, LCA)
            model.pool = Projection(model.pool)
        path = folder / f"{name}.onnx"
        export_onnx(model, options.image_size, path)
        networks[name] = OnnxClassifier(path, options.threads)
    return networks


def measure(
    networks: Mapping[str, Callable[[Tensor], Tensor]], options: Options
) -> dict[str, list[float]]:
    """Return the seconds per run of each network; the networks take turns."""
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    image = torch.rand(1, 3, options.image_size, options.image_size)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for network in networks.values():
        network(image)
    for _ in trange(options.rounds, unit="round", disable=None):
        for name, network in networks.items():
            start = clock()
            network(image)
            times[name].append(clock() - start)
    return times


def table(times: dict[str, list[float]]) -> str:
    """Return quartiles in milliseconds, and the ratios of two of them to the first network's."""
    quartiles = {name: 1e3 * np.percentile(values, [25, 50, 75]) for name, values in times.items()}
    base = next(iter(quartiles.values()))
    rows = [
        [
            name,
            *(f"{value:.2f}" for value in values),
            *(f"{value:.3f}" for value in values[:2] / base[:2]),
        ]
        for name, values in quartiles.items()
    ]
    first = next(iter(times))
    headers = ["head", "lower quartile, ms", "median", "upper quartile"]
    headers += [f"lower quartile / {first}", f"median / {first}"]
    return tabulate(rows, headers, disable_numparse=True)


if __name__ == "__main__":
    main()
