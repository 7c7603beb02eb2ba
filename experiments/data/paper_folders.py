"""CAPG-GP and DM4VM, the paper's smaller data sets: train and test folders with a folder per class.

How their authors lay them out is not published, so the user sorts the photos into
<root>/<data set>/train/<class>/ and <root>/<data set>/test/<class>/.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.data.dataset import DataError, DataNotGivenError, ProductDataset
from experiments.data.folder import load_folder
from experiments.data.source import CatalogEntry, DataOptions, Source

logger = logging.getLogger(__name__)

_ONE_SHOT_REPEATS = 12
_LISTED = 5  # classes spelled out in one finding


@dataclass(frozen=True)
class PaperFolders:
    """What was published of a data set.

    Attributes:
        name: name of the data set here, and of its folder.
        title: title of the data set in the paper.
        classes: number of classes that were published.
        train: fewest and most training photos of a class.
        home: where to get the photos, a clause for messages.
        train_repeats: how often an epoch draws each training photo; None for as often as fills an
            epoch.
        validation_fraction: share of the training photos that is held out, in [0, 1).
    """

    name: str
    title: str
    classes: int
    train: tuple[int, int]
    home: str
    train_repeats: int | None
    validation_fraction: float

    def load(self, root: Path) -> ProductDataset:
        """Read the data set; counts other than the published ones are warned of.

        Args:
            root: the folder that holds the folder `name`, or that folder itself.

        Returns:
            The data set, named `name`. Where there is no validation folder, training photos are
            held out (see `validation_fraction`).

        Raises:
            DataNotGivenError: there is no such folder.
            DataError: it is not laid out as a train and a test folder, see `load_folder`.
        """
        dataset = self._read(root)
        for finding in self._odd_counts(dataset):
            logger.warning("%s: %s", self.name, finding)
        return dataset

    def check(self, root: Path) -> list[str]:
        """Return what is missing or odd, each finding one sentence."""
        try:
            dataset = self._read(root)
        except DataError as error:
            return [str(error)]
        return [*self._odd_counts(dataset), *_untested(dataset)]

    def source(self) -> Source:
        """Return the data set as the catalog knows it."""

        def load(options: DataOptions) -> ProductDataset:
            if options.root is None:
                raise DataNotGivenError(
                    f"no photos of {self.title}: pass --data-root FOLDER or set LCA_DATA_ROOT, "
                    f"with {self._layout(Path('FOLDER'))}; {self.home}"
                )
            return self.load(options.root)

        datasets = {self.name: CatalogEntry(load, self.title)}
        return Source(self.name, datasets, self.home, self.check)

    def _layout(self, root: Path) -> str:
        folder = root / self.name
        return f"the photos in {folder / 'train'}/<class>/ and {folder / 'test'}/<class>/"

    def _read(self, root: Path) -> ProductDataset:
        dataset = load_folder(
            self._find(root),
            validation_fraction=self.validation_fraction,
            train_repeats=self.train_repeats,
        )
        return replace(dataset, name=self.name)

    def _find(self, root: Path) -> Path:
        folders = [folder for folder in self._candidates(root) if folder.is_dir()]
        if not folders:
            raise DataNotGivenError(
                f"no photos of {self.title}: there is no folder {root / self.name}; put "
                f"{self._layout(root)}; {self.home}"
            )
        missing = [name for name in ("train", "test") if not (folders[0] / name).is_dir()]
        if missing:
            raise DataError(
                f"{folders[0]} has no folder {' and no folder '.join(missing)}: expected "
                f"{self._layout(folders[0].parent)}; {self.home}"
            )
        return folders[0]

    def _candidates(self, root: Path) -> Iterator[Path]:
        yield root / self.name
        yield root / self.title
        if root.name.lower() == self.name:
            yield root

    def _odd_counts(self, dataset: ProductDataset) -> Iterator[str]:
        if len(dataset.classes) != self.classes:
            yield (
                f"{len(dataset.classes)} classes are there, {self.classes} were published, so the "
                "paper's figure is of another task"
            )
        photos = Counter(sample.label for sample in (*dataset.train, *dataset.validation))
        fewest, most = self.train
        odd = [
            f"{name} ({photos[label]})"
            for label, name in enumerate(dataset.classes)
            if not fewest <= photos[label] <= most
        ]
        if odd:
            expected = str(fewest) if fewest == most else f"{fewest} to {most}"
            yield (
                f"{len(odd)} classes have another number of training photos than the {expected} "
                f"that were published: {_listed(odd)}"
            )


def _untested(dataset: ProductDataset) -> list[str]:
    tested = {sample.label for sample in dataset.test}
    names = [name for label, name in enumerate(dataset.classes) if label not in tested]
    return [f"there is no test photo of {_listed(names)}"] if names else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


CAPG_GP = PaperFolders(
    name="capg-gp",
    title="CAPG-GP",
    classes=102,
    train=(1, 1),
    home="its authors give it out at zju-capg.org/capg-gp.html",
    train_repeats=_ONE_SHOT_REPEATS,
    validation_fraction=0.0,
).source()
"""One training photo per class, drawn 12 times per epoch, and so none to validate on."""

DM4VM = PaperFolders(
    name="dm4vm",
    title="DM4VM",
    classes=10,
    train=(60, 70),
    home="no public page of it was found: ask the authors of the paper that introduced it",
    train_repeats=None,
    validation_fraction=0.1,
).source()
"""60 to 70 training photos per class; a tenth of them is held out for validation."""
