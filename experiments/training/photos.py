"""The photos of one data set as tensors: decoded once for all the methods that learn from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from experiments.data.augment import evaluation_transform, training_transform
from experiments.data.dataset import ProductDataset
from experiments.data.torch_dataset import PhotoDataset
from experiments.networks.backbones import Normalization
from experiments.training.recipe import Recipe

# Photos are kept larger than the network's input: a training crop may enlarge a part of them.
CACHE_SCALE = 1.5


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
    def load(cls, dataset: ProductDataset, recipe: Recipe, normalization: Normalization) -> Photos:
        """Decode all photos of `dataset`; raises ImageError for one that cannot be read."""
        size, scaling = recipe.image_size, (normalization.mean, normalization.std)
        augment = training_transform(size, recipe.augmentation, *scaling)
        plain = evaluation_transform(size, *scaling, center_crop=recipe.augmentation.center_crop)
        side = math.ceil(CACHE_SCALE * size)
        return cls(
            PhotoDataset(dataset.train, augment, repeats=dataset.train_repeats, cache_side=side),
            PhotoDataset(dataset.validation, plain, cache_side=side)
            if dataset.validation
            else None,
            PhotoDataset(dataset.test, plain, cache_side=side),
        )

    def train(self, seed: int) -> PhotoDataset:
        """Return the training photos, augmented by draws from `seed` from now on."""
        self.augmented.seed = seed
        return self.augmented
