"""How well products join a classifier without training: enrolled in a gallery, or trained on anew.

    python -m experiments.study.new_products --data-root DATA --weights FILE

The 31 packaged goods are split by a seed: a classifier is trained on the photos of most, and the
others join from their packshot, from a photo or from five. Backbones are frozen throughout.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from tabulate import tabulate
from torch import nn
from torch.utils.data import DataLoader

from experiments.data.cut_out import cut_out
from experiments.data.dataset import DataError, Sample, cutting_digest, dataset_digest
from experiments.data.grocery_store import load_grocery_store
from experiments.data.torch_dataset import PhotoDataset
from experiments.networks.backbones import load_network
from experiments.networks.model import new_classifier
from experiments.study.cells import weights_identity
from experiments.study.row_by_row import run_row_by_row
from experiments.training.device import Compute, resolve_compute
from experiments.training.feature_maps import MapDataset, MapStore, pooled
from experiments.training.head_first import train_head
from experiments.training.photos import Photos
from experiments.training.recipe import Recipe
from experiments.training.scoring import score
from lca_fused.backbones import find_backbone
from lca_fused.classifier import Classifier
from lca_fused.gallery import Gallery
from lca_fused.heads import HEADS

Head = Literal["gap", "gap-fc", "gem", "rmac", "lca"]

JOIN_FROM = {"packshot": None, "1 store photo": 1, "5 store photos": 5}
"""Photos of each product that joins."""


@dataclass(frozen=True)
class Options:
    """Split products into old and new, and let the new ones join."""

    data_root: Path
    """Folder of the Grocery Store Dataset."""
    weights: Path | None = None
    """File of the backbone's pretrained weights; default: fetched once."""
    backbone: str = "timm:tf_efficientnet_lite0"
    """Pretrained network, which stays as it is."""
    heads: tuple[Head, ...] = ("gap", "lca")
    """Heads that are trained on the old products."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seed of each split."""
    new: int = 11
    """Products that join."""
    epochs: int = 12
    """Passes over the maps."""
    views: int = 2
    """Augmentations of each photo."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    output: Path = Path("runs/new-products")
    """Folder of the maps, which are kept, and of results.json."""


@dataclass(frozen=True)
class Maps:
    """Maps of packshots, of store photos, and of augmentations of both."""

    packshots: MapDataset
    photos: MapDataset
    augmented_packshots: MapDataset
    augmented_photos: MapDataset
    validation: MapDataset
    test: MapDataset


def measure(options: Options) -> Iterator[dict[str, Any]]:
    """Yield the accuracies, 0..1, for each head, split, kind of photos and way to join."""
    compute = resolve_compute(options.device, "float32")
    maps = load_maps(options, compute)
    for head, seed in product(options.heads, options.seeds):
        old, new = split(options, maps, seed)
        train = partial(trained, options, compute, head, seed)
        before = train(maps.augmented_photos.of(old), maps.validation.of(old), len(old))
        test = maps.test.of(old + new)
        for name, most in JOIN_FROM.items():
            plain = (maps.packshots if most is None else maps.photos).of(new, most)
            augmented = maps.augmented_packshots if most is None else maps.augmented_photos
            known = maps.augmented_photos.of(old)
            everything = joined(known, augmented.of(new, most))
            ways = {
                "enrolled": with_gallery(before, joined(maps.photos.of(old), plain), compute),
                "trained anew": train(everything, maps.validation.of(old + new), len(old + new)),
            }
            for way, model in ways.items():
                accuracies = _accuracies(model, test, len(old), compute)
                yield {"head": head, "seed": seed, "from": name, "way": way, **accuracies}


def split(options: Options, maps: Maps, seed: int) -> tuple[list[int], list[int]]:
    """Return the labels of old and of new products.

    Raises:
        DataError: fewer than two old ones would be left, or no new one.
    """
    classes = sorted({sample.label for sample in maps.photos.samples})
    if not 1 <= options.new <= len(classes) - 2:
        raise DataError(
            f"--new is {options.new}; expected 1 to {len(classes) - 2} of the {len(classes)} "
            "products: two are needed to train a classifier"
        )
    order = random.Random(seed).sample(classes, len(classes))
    return sorted(order[options.new :]), sorted(order[: options.new])


def joined(old: MapDataset, new: MapDataset) -> MapDataset:
    """Return the maps of both; classes of the second are numbered behind those of the first."""
    first = 1 + max(sample.label for sample in old.samples)
    moved = tuple(replace(sample, label=first + sample.label) for sample in new.samples)
    views = min(len(old.maps), len(new.maps))
    maps = np.concatenate([old.maps[:views], new.maps[:views]], axis=1)
    return MapDataset(old.samples + moved, maps)


def load_maps(options: Options, compute: Compute) -> Maps:
    """Return maps of all photos, from the options' folder where they are there."""
    backbone = find_backbone(options.backbone)
    network = load_network(options.backbone, options.weights, backbone.preprocessing.image_size)
    model = new_classifier(network, "gap", 2, backbone.preprocessing.image_size)
    recipe = Recipe(views=options.views)
    packshots = cut_out(load_grocery_store(options.data_root, "one-shot"), "auto")
    photos = load_grocery_store(options.data_root, "many-shot")
    settings = {
        "backbone": options.backbone,
        "weights": weights_identity(backbone, options.weights),
        "photos": [dataset_digest(dataset) for dataset in (packshots, photos)],
        "cut_out": cutting_digest(packshots),
        "augmentation": asdict(recipe.augmentation),
    }
    store = MapStore(model.backbone.to(compute.device), compute, options.output / "maps", settings)
    of_packshots, of_photos = (
        Photos.load(dataset, recipe, backbone.preprocessing) for dataset in (packshots, photos)
    )

    def plain(samples: Sequence[Sample], name: str) -> MapDataset:
        uncut = [replace(sample, mask=None) for sample in samples]
        transform, side = backbone.preprocessing.transform(), backbone.preprocessing.kept_side
        return store.plain(PhotoDataset(uncut, transform, cache_side=side), name)

    return Maps(
        plain(packshots.train, "packshots"),
        plain(photos.train, "photos"),
        _repeats_as_photos(store.training(of_packshots.train(0), recipe)),
        store.training(of_photos.train(1), recipe),
        plain(photos.validation, "validation"),
        plain(photos.test, "test"),
    )


def _repeats_as_photos(maps: MapDataset) -> MapDataset:
    """Return the repeats of each photo as photos of their own."""
    views = len(maps.maps) // maps.repeats
    spread = maps.maps.reshape(views, len(maps), *maps.maps.shape[2:])
    return MapDataset(maps.samples * maps.repeats, spread)


def trained(
    options: Options,
    compute: Compute,
    head: str,
    seed: int,
    train: MapDataset,
    validation: MapDataset,
    classes: int,
) -> Classifier:
    """Return a classifier of maps, its head trained on them."""
    torch.manual_seed(seed)
    pool = HEADS[head](train.maps.shape[2])
    model = Classifier(nn.Identity(), pool, classes).to(compute.device)
    recipe = Recipe(head_epochs=options.epochs, finetune="head", balanced=True)
    with TemporaryDirectory() as folder:  # a training takes a minute: it need not be resumed
        train_head(
            model,
            nn.CrossEntropyLoss(),
            recipe,
            compute,
            train,
            validation,
            seed=seed,
            checkpoint=Path(folder) / "checkpoint.pt",
            title=f"{head}, {classes} products",
        )
    return model


def with_gallery(model: Classifier, photos: MapDataset, compute: Compute) -> Classifier:
    """Return the model with a vector of each photo in the place of its linear layer."""
    vectors, labels = pooled(model.pool, photos, compute)
    names = [str(label) for label in range(int(labels.max()) + 1)]
    enrolled = Classifier(nn.Identity(), model.pool, 0)
    enrolled.set_gallery(Gallery(vectors, labels, names))
    return enrolled.to(compute.device)


def _accuracies(
    model: Classifier, test: MapDataset, old: int, compute: Compute
) -> dict[str, float]:
    found = score(model, DataLoader(test, batch_size=64), compute).top5[:, 0]
    labels = torch.tensor([sample.label for sample in test.samples])
    right = (found == labels).double()
    of_new = labels >= old
    return {
        "all": float(right.mean()),
        "old": float(right[~of_new].mean()),
        "new": float(right[of_new].mean()),
    }


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table, a row for each head, kind of photos and way; in %, each split in turn."""
    table = []
    for head, name, way in dict.fromkeys((row["head"], row["from"], row["way"]) for row in rows):
        same = [row for row in rows if (row["head"], row["from"], row["way"]) == (head, name, way)]
        accuracies = {
            part: " ".join(f"{100 * row[part]:.1f}" for row in same)
            for part in ("all", "old", "new")
        }
        table.append({"head": head, "new products from": name, "": way} | accuracies)
    return tabulate(table, headers="keys", tablefmt="github")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and write it beside the maps; return the exit status."""
    return run_row_by_row(Options, measure, to_markdown, arguments)[0]


if __name__ == "__main__":
    sys.exit(main())
