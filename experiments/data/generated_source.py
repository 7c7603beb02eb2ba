"""The generated products as the catalog knows them, each scenario in the part of a paper's set."""

from __future__ import annotations

from functools import partial

from experiments.data.dataset import ProductDataset
from experiments.data.generated import load_scenario
from experiments.data.source import CatalogEntry, DataOptions, Source


def _load(scenario: str, options: DataOptions) -> ProductDataset:
    return load_scenario(scenario, options.cache, image_size=options.image_size)


def _nothing_to_check(_root: object) -> list[str]:
    return []


EMBEDDED = Source(
    name="embedded",
    datasets={
        "embedded/multi-packshot": CatalogEntry(partial(_load, "multi-packshot"), "GroZi-120"),
        "embedded/one-shot": CatalogEntry(partial(_load, "one-shot"), "CAPG-GP"),
        "embedded/store": CatalogEntry(partial(_load, "store"), "DM4VM"),
    },
    home="nowhere: these photos are generated when they are needed",
    check=_nothing_to_check,
)
"""As the catalog knows it."""
