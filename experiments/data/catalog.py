"""Every source of photos, one line each; every data set of theirs by its name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from experiments.data.copies import describe_copies, find_copies
from experiments.data.cut_out import cut_out
from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.data.folder import FOLDER
from experiments.data.generated.scenarios import EMBEDDED
from experiments.data.grocery_store import GROCERY_STORE
from experiments.data.grozi import GROZI_120
from experiments.data.images import BadImage, check_images
from experiments.data.paper_folders import CAPG_GP, DM4VM
from experiments.data.source import CatalogEntry, DataOptions, Source

logger = logging.getLogger(__name__)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        EMBEDDED,
        GROCERY_STORE,
        GROZI_120,
        CAPG_GP,
        DM4VM,
        FOLDER,
    )
}
"""By what `python -m experiments.data` calls them."""

CATALOG: dict[str, CatalogEntry] = {
    name: entry for source in SOURCES.values() for name, entry in source.datasets.items()
}
"""By what `--datasets` calls them."""


def load_dataset(name: str, options: DataOptions) -> ProductDataset:
    """Load the data set `name`.

    Raises:
        DataError: the name is unknown, the data is missing or inconsistent, or photos cannot be
            read (with `skip_bad_images`: a product is left without training photos) or cut out.
    """
    if name not in CATALOG:
        raise DataError(f"data set is {name!r}; expected one of {sorted(CATALOG)}")
    dataset = cut_out(CATALOG[name].load(options), options.cut_out)
    return readable(dataset, skip=options.skip_bad_images)


def readable(dataset: ProductDataset, *, skip: bool) -> ProductDataset:
    """Return `dataset` without the photos that cannot be decoded; raises if not `skip`.

    Copies of photos in two splits or under two labels are logged and noted.
    """
    everything = [*dataset.train, *dataset.validation, *dataset.test]
    _, bad = check_images(everything, skip=skip)
    dataset = _without(dataset, bad) if bad else dataset
    notes = describe_copies(dataset, find_copies(sample.path for sample in everything))
    for note in notes:
        logger.warning("%s: %s", dataset.name, note)
    return replace(dataset, notes=(*dataset.notes, *notes))


def _without(dataset: ProductDataset, bad: Sequence[BadImage]) -> ProductDataset:
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
        notes=(*dataset.notes, f"{len(bad)} photos cannot be read and are left out."),
    )
    left = {sample.label for sample in readable.train}
    lost = [name for label, name in enumerate(dataset.classes) if label not in left]
    if lost or not readable.test:
        what = f"products {', '.join(lost)} have no training photo" if lost else "no test photo is"
        raise DataError(f"{dataset.name}: {what} left that can be read; add photos of them")
    return readable
