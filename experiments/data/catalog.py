"""Every data set by name: one line each, pointing at the file that knows its layout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from experiments.data.dataset import DataError, DataNotGivenError, ProductDataset, Sample
from experiments.data.embedded import load_scenario
from experiments.data.folder import load_folder
from experiments.data.grocery_store import load_grocery_store
from experiments.data.images import check_images

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataOptions:
    """Where a loader may look.

    Attributes:
        root: the user's photos, or None.
        cache: folder that generated photos are kept in.
        image_size: side of generated photos, in pixels.
        skip_bad_images: leave unreadable photos out instead of stopping.
    """

    root: Path | None
    cache: Path
    image_size: int
    skip_bad_images: bool = False

    def required_root(self) -> Path:
        """Return `root`; raises DataError when there is none."""
        if self.root is None:
            raise DataNotGivenError(
                "no photos were given; pass --data-root FOLDER or set LCA_DATA_ROOT"
            )
        return self.root


@dataclass(frozen=True)
class CatalogEntry:
    """A data set that can be asked for by name.

    Attributes:
        load: reads it.
        paper_dataset: the paper's data set whose role it plays, or None.
    """

    load: Callable[[DataOptions], ProductDataset]
    paper_dataset: str | None = None


def _embedded(scenario: str, options: DataOptions) -> ProductDataset:
    return load_scenario(scenario, options.cache, image_size=options.image_size)


CATALOG: dict[str, CatalogEntry] = {
    "embedded/multi-packshot": CatalogEntry(partial(_embedded, "multi-packshot"), "GroZi-120"),
    "embedded/one-shot": CatalogEntry(partial(_embedded, "one-shot"), "CAPG-GP"),
    "embedded/store": CatalogEntry(partial(_embedded, "store"), "DM4VM"),
    "grocery-store/many-shot": CatalogEntry(
        lambda options: load_grocery_store(options.required_root(), "many-shot")
    ),
    "grocery-store/one-shot": CatalogEntry(
        lambda options: load_grocery_store(options.required_root(), "one-shot")
    ),
    "grocery-store-coarse/many-shot": CatalogEntry(
        lambda options: load_grocery_store(options.required_root(), "many-shot", labels="coarse")
    ),
    "grocery-store-coarse/one-shot": CatalogEntry(
        lambda options: load_grocery_store(options.required_root(), "one-shot", labels="coarse")
    ),
    "folder": CatalogEntry(lambda options: load_folder(options.required_root())),
}


def load_dataset(name: str, options: DataOptions) -> ProductDataset:
    """Load the data set `name`.

    Raises:
        DataError: the name is unknown, the data is missing or inconsistent, or photos cannot be
            read (with `skip_bad_images`: a product is left without training photos).
    """
    if name not in CATALOG:
        raise DataError(f"data set is {name!r}; expected one of {sorted(CATALOG)}")
    dataset = CATALOG[name].load(options)
    generated = name.startswith("embedded/")
    return dataset if generated else _readable(dataset, skip=options.skip_bad_images)


def _readable(dataset: ProductDataset, *, skip: bool) -> ProductDataset:
    """Return `dataset` without the photos that cannot be decoded; raises if not `skip`."""
    everything = [*dataset.train, *dataset.validation, *dataset.test]
    _, bad = check_images(everything, skip=skip)
    if not bad:
        return dataset
    logger.warning("%s: %d photos cannot be read and are left out:", dataset.name, len(bad))
    for image in bad:
        logger.warning("  %s: %s", image.path, image.reason)
    paths = {image.path for image in bad}

    def good(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(sample for sample in samples if sample.path not in paths)

    readable = replace(
        dataset,
        train=good(dataset.train),
        validation=good(dataset.validation),
        test=good(dataset.test),
    )
    left = {sample.label for sample in readable.train}
    lost = [name for label, name in enumerate(dataset.classes) if label not in left]
    if lost or not readable.test:
        what = f"products {', '.join(lost)} have no training photo" if lost else "no test photo is"
        raise DataError(f"{dataset.name}: {what} left that can be read; add photos of them")
    return readable
