"""How well products that a classifier does not know are told from those it knows.

    python -m experiments.study.unknown_products --data-root DATA --weights FILE

The 31 packaged goods are split by a seed: a classifier is trained on the photos of most, and sees
test photos of all. Backbones are frozen. Measured of every score: the area under the ROC curve, and
the share of unknown products' photos let through where 95 % of the known ones' are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from experiments.selective import auroc, let_through
from experiments.study import new_products
from experiments.study.new_products import Maps, load_maps, split, trained, with_gallery
from experiments.study.row_by_row import run_row_by_row
from experiments.training.device import Compute, resolve_compute
from experiments.training.feature_maps import pooled
from lca_fused.classifier import Classifier
from lca_fused.decision import SCORES
from lca_fused.pretrained import gallery_of


@dataclass(frozen=True)
class Options(new_products.Options):
    """Split products into known and unknown, and see whether scores tell them apart."""

    new: int = 11
    """Products left out of training."""
    output: Path = Path("runs/unknown-products")
    """Folder of the maps, which are kept, and of results.json."""


def measure(options: Options) -> Iterator[dict[str, Any]]:
    """Yield a row for each head, split, kind of classifier and score."""
    compute = resolve_compute(options.device, "float32")
    maps = load_maps(options, compute)
    for head, seed in product(options.heads, options.seeds):
        known, unknown = split(options, maps, seed)
        linear = trained(
            options,
            compute,
            head,
            seed,
            maps.augmented_photos.of(known),
            maps.validation.of(known),
            len(known),
        )
        gallery = with_gallery(linear, maps.photos.of(known), compute)
        seen = {"head": head, "seed": seed}
        of_known = _scores(linear, gallery, maps, known, compute)
        of_unknown = _scores(linear, gallery, maps, unknown, compute)
        for kind, scores in of_known.items():
            for name, values in scores.items():
                both = values.numpy(), of_unknown[kind][name].numpy()
                measured = {"auroc": auroc(*both), "let_through": let_through(*both)}
                yield seen | {"classifier": kind, "score": name, **measured}


def _scores(
    linear: Classifier, gallery: Classifier, maps: Maps, labels: Sequence[int], compute: Compute
) -> dict[str, dict[str, Tensor]]:
    """Return the float64 scores of test photos by kind of classifier and name of score."""
    vectors, _ = pooled(linear.pool, maps.test.of(labels), compute)
    enrolled = gallery_of(gallery)
    assert enrolled is not None
    with torch.inference_mode():
        logits = {
            "trained": linear.cpu().classifier(vectors).double(),
            "gallery": enrolled.cpu()(vectors).double(),
        }
    found = {
        kind: {name: score(values) for name, score in SCORES.items()}
        for kind, values in logits.items()
    }
    found["trained"]["gallery distance"] = found["gallery"]["max-logit"]
    return found


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table, a row for each head, kind of classifier and score; each split in turn."""
    table = []
    keys = ("head", "classifier", "score")
    for key in dict.fromkeys(tuple(row[name] for name in keys) for row in rows):
        same = [row for row in rows if tuple(row[name] for name in keys) == key]
        table.append(
            dict(zip(keys, key, strict=True))
            | {
                "AUROC": " ".join(f"{row['auroc']:.3f}" for row in same),
                "let through, %": " ".join(f"{100 * row['let_through']:.1f}" for row in same),
            }
        )
    return tabulate(table, headers="keys", tablefmt="github")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write it beside the maps; return the exit status."""
    return run_row_by_row(Options, measure, to_markdown, arguments)[0]


if __name__ == "__main__":
    sys.exit(main())
