"""What a source of photos is to the catalog: the data sets read from it, a check and a download."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.data.cut_out import CutOut
from experiments.data.dataset import DataError, DataNotGivenError, ProductDataset


@dataclass(frozen=True)
class DataOptions:
    """Where a loader may look.

    Attributes:
        root: the user's photos, or None.
        cache: folder that generated photos are kept in.
        image_size: side of generated photos, in pixels.
        skip_bad_images: leave unreadable photos out instead of stopping.
        cut_out: which training photos are laid on fresh grounds.
    """

    root: Path | None
    cache: Path
    image_size: int
    skip_bad_images: bool = False
    cut_out: CutOut = "auto"

    def required_root(self) -> Path:
        """Return `root`; raises DataNotGivenError when there is none."""
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


@dataclass(frozen=True)
class Source:
    """Photos of one origin.

    Attributes:
        name: what the command line calls it.
        datasets: the data sets read from it, by their names in the catalog.
        home: where its photos come from, a clause for messages ("get it from ...").
        check: lists what is missing or odd below a folder, each finding one sentence; None where
            what the loaders say is all there is to say.
        download: fetches and unpacks the photos below a folder; None where no public address of
            them is known.
    """

    name: str
    datasets: Mapping[str, CatalogEntry]
    home: str
    check: Callable[[Path], list[str]] | None = None
    download: Callable[[Path], None] | None = None

    def findings(self, root: Path) -> list[str]:
        """Return what is missing or odd below `root`, each finding one sentence."""
        return self.check(root) if self.check else self._loading_errors(root)

    def _loading_errors(self, root: Path) -> list[str]:
        options = DataOptions(root=root, cache=root, image_size=224)
        errors = [_loading_error(entry, options) for entry in self.datasets.values()]
        return [error for error in dict.fromkeys(errors) if error]


def _loading_error(entry: CatalogEntry, options: DataOptions) -> str:
    try:
        entry.load(options)
    except DataError as error:
        return str(error)
    return ""
