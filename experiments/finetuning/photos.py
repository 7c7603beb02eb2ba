"""One's own photos: read, checked, split and counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from experiments.data.catalog import readable
from experiments.data.dataset import ProductDataset
from experiments.data.folder import load_folder


@dataclass(frozen=True)
class PhotoCounts:
    """How many photos there are.

    Attributes:
        by_class: training, validation and test photos of each class.
    """

    by_class: dict[str, tuple[int, int, int]]

    @classmethod
    def of(cls, dataset: ProductDataset) -> PhotoCounts:
        """Count the photos of a data set."""
        train, validation, test = (
            Counter(sample.label for sample in split)
            for split in (dataset.train, dataset.validation, dataset.test)
        )
        return cls(
            {
                name: (train[label], validation[label], test[label])
                for label, name in enumerate(dataset.classes)
            }
        )

    @property
    def train(self) -> int:
        """Training photos in all."""
        return sum(train for train, _, _ in self.by_class.values())

    @property
    def validation(self) -> int:
        """Validation photos in all."""
        return sum(validation for _, validation, _ in self.by_class.values())

    @property
    def range_of_train(self) -> tuple[int, int]:
        """Training photos of the smallest and the largest class."""
        counts = [train for train, _, _ in self.by_class.values()]
        return min(counts), max(counts)

    @property
    def imbalance(self) -> float:
        """Training photos of the largest class over those of the smallest."""
        fewest, most = self.range_of_train
        return most / fewest


def load_own_photos(
    root: Path,
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    skip_bad_images: bool = False,
) -> ProductDataset:
    """Read the photos below `root` as `load_folder` does, and see that all can be decoded.

    Args:
        root: the folder.
        validation_fraction: see `load_folder`.
        test_fraction: see `load_folder`.
        seed: of the holdouts.
        skip_bad_images: leave unreadable photos out instead of stopping.

    Raises:
        DataError: the folder cannot be used (see `load_folder`), photos cannot be read, or, with
            `skip_bad_images`, too few are left.
    """
    dataset = load_folder(
        root, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed
    )
    return readable(dataset, skip=skip_bad_images)
