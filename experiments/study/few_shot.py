"""How accuracy grows with the photos of each product, on a frozen backbone.

    python -m experiments.study.few_shot --data-root DATA --weights FILE

Of each of the 31 packaged goods 1, 2, 5 and all store photos are taken, drawn by a seed; the fewer
are among the more. Heads are trained on them, or class means enrolled in a gallery.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import nn
from torch.utils.data import DataLoader

from experiments.data.own_output import PICTURE_METADATA
from experiments.methods import METHODS
from experiments.storage import write_atomically
from experiments.study import new_products
from experiments.study.new_products import Head, Maps, load_maps, trained
from experiments.study.row_by_row import run_row_by_row
from experiments.training.class_means import enroll_class_means
from experiments.training.device import Compute, resolve_compute
from experiments.training.feature_maps import MapDataset
from experiments.training.scoring import score
from lca_fused.classifier import Classifier
from lca_fused.heads import HEADS


@dataclass(frozen=True)
class Options(new_products.Options):
    """Take some photos of each product, and see how well products are recognised from them."""

    heads: tuple[Head, ...] = ("gap", "gap-fc", "rmac", "lca")
    """Heads that are compared."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seed of each draw of photos, and of the heads' first weights."""
    shots: tuple[int, ...] = (1, 2, 5, 0)
    """Photos of each product; 0: all there are."""
    output: Path = Path("runs/few-shot")
    """Folder of the maps, which are kept, of results.json and of curves.png."""


def measure(options: Options) -> Iterator[dict[str, Any]]:
    """Yield the test accuracy, 0..1, for each draw, number of photos, head and way."""
    compute = resolve_compute(options.device, "float32")
    maps = load_maps(options, compute)
    labels = sorted({sample.label for sample in maps.photos.samples})
    for seed, shots in product(options.seeds, options.shots):
        order = np.random.default_rng(seed).permutation(len(maps.photos.samples)).tolist()
        draw = partial(_drawn, order=order, labels=labels, shots=shots or None)
        for head in options.heads:
            train = partial(trained, options, compute, head, seed)
            model = train(draw(maps.augmented_photos), maps.validation, len(labels))
            ways = {"trained": model}
            if head != "gap-fc":  # whose layer is noise until it is trained
                ways["gallery"] = _enrolled(head, draw(maps.photos), labels, compute)
            for way, classifier in ways.items():
                drawn = {"head": head, "seed": seed, "shots": shots, "way": way}
                yield drawn | {"accuracy": _accuracy(classifier, maps, compute)}


def _drawn(
    maps: MapDataset, order: Sequence[int], labels: Sequence[int], shots: int | None
) -> MapDataset:
    """Return maps of the first `shots` photos of each class in an order; None for all."""
    samples = tuple(maps.samples[number] for number in order)
    return MapDataset(samples, maps.maps[:, order], maps.repeats).of(labels, shots)


def _enrolled(head: str, maps: MapDataset, labels: Sequence[int], compute: Compute) -> Classifier:
    pool = HEADS[head](maps.maps.shape[2])
    model = Classifier(nn.Identity(), pool, len(labels)).to(compute.device)
    enroll_class_means(model, maps, [str(label) for label in labels], compute)
    return model.to(compute.device)


def _accuracy(model: Classifier, maps: Maps, compute: Compute) -> float:
    found = score(model, DataLoader(maps.test, batch_size=64), compute).top5[:, 0]
    right = found == torch.tensor([sample.label for sample in maps.test.samples])
    return float(right.double().mean())


def by_shots(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[int, list[float]]]:
    """Return the accuracies of all draws in %, by (head, way) and number of photos."""
    curves: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        curve = curves.setdefault((row["head"], row["way"]), {})
        curve.setdefault(row["shots"], []).append(100 * row["accuracy"])
    return curves


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table, a row for each head and way, a column for each number of photos."""
    table = [
        {"head": METHODS[head].title, "": way}
        | {
            _name(shots): " ".join(f"{value:.1f}" for value in values)
            for shots, values in curve.items()
        }
        for (head, way), curve in by_shots(rows).items()
    ]
    return tabulate(table, headers="keys", tablefmt="github", disable_numparse=True)


def _name(shots: int) -> str:
    return str(shots) if shots else "all"


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the mean accuracy of each head against the photos per product, a panel for each way."""
    curves = by_shots(rows)
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    heads = dict.fromkeys(head for head, _ in curves)
    colours = {head: f"C{number}" for number, head in enumerate(heads)}
    for ax, way in zip(panels, ("trained", "gallery"), strict=True):
        for head in (head for head, own in curves if own == way):
            curve = curves[head, way]
            places, means = range(len(curve)), [mean(values) for values in curve.values()]
            ax.plot(places, means, "o-", color=colours[head], label=METHODS[head].title)
            ax.set_xticks(places, [_name(shots) for shots in curve])
        ax.set(title=way, xlabel="store photos per product")
    panels[0].set_ylabel("test accuracy, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write it and the curves beside the maps; return the exit status."""
    status, options, rows = run_row_by_row(Options, measure, to_markdown, arguments)
    if status == 0:
        save = partial(draw(rows).savefig, format="png", dpi=120, metadata=PICTURE_METADATA)
        write_atomically(options.output / "curves.png", save)
    return status


if __name__ == "__main__":
    sys.exit(main())
