"""The photos of one data set as tensors: decoded once for all the methods that learn from them."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.data.augment import training_transform
from experiments.data.dataset import ProductDataset
from experiments.data.torch_dataset import GIB, PhotoDataset
from experiments.training.recipe import Recipe
from lca_fused.preprocessing import Preprocessing


def augmented_photos(
    dataset: ProductDataset,
    recipe: Recipe,
    preprocessing: Preprocessing,
    cache_bytes: int = 2 * GIB,
) -> PhotoDataset:
    """Return the training photos, augmented, decoded once if `cache_bytes` hold them."""
    return PhotoDataset(
        dataset.train,
        training_transform(preprocessing, recipe.augmentation),
        repeats=dataset.train_repeats,
        cache_side=preprocessing.kept_side,
        cache_bytes=cache_bytes,
    )


@dataclass(frozen=True)
class Photos:
    """The three splits of a `ProductDataset`, transformed as a recipe and a backbone want them.

    Attributes:
        augmented: training photos, augmented.
        validation: None when the data set has none.
        test: photos that are only ever scored.
    """

    augmented: PhotoDataset
    validation: PhotoDataset | None
    test: PhotoDataset

    @classmethod
    def load(cls, dataset: ProductDataset, recipe: Recipe, preprocessing: Preprocessing) -> Photos:
        """Decode all photos of `dataset`; raises ImageError for one that cannot be read."""
        plain, side = preprocessing.transform(), preprocessing.kept_side
        return cls(
            augmented_photos(dataset, recipe, preprocessing),
            PhotoDataset(dataset.validation, plain, cache_side=side)
            if dataset.validation
            else None,
            PhotoDataset(dataset.test, plain, cache_side=side),
        )

    def train(self, seed: int) -> PhotoDataset:
        """Return the training photos, augmented by draws from `seed` from now on."""
        self.augmented.seed = seed
        return self.augmented
