"""Photos as tensors: decoded once, augmented repeatably."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from tqdm import tqdm

from experiments.data.backgrounds import BACKGROUNDS, lay_on_background
from experiments.data.dataset import DataError, Sample
from experiments.data.images import default_workers, read_sample
from lca_fused.photos.reading import image_size
from lca_fused.preprocessing import shrink, shrunk_size

logger = logging.getLogger(__name__)

GIB = 1024**3


class PhotoDataset(Dataset[tuple[Tensor, int]]):
    """Photos and their labels, transformed.

    An item's randomness depends on (seed, epoch, index) only: it is the same for any number of
    loader workers and after a resume at any epoch. That holds for what is drawn from torch's global
    CPU generator, as torchvision's v2 transforms do; the generator is left as it was.

    With `cache_side` the photos are decoded once, in the main process, and kept in one uint8 tensor
    that the loader's workers share. A photo takes 3 * cache_side**2 bytes times its aspect ratio:
    256 px and 4:3 are 0.26 MB, so 2 GiB hold about 8000 photos. Photos are shrunk to `cache_side`
    whether or not the cache fits its budget, so the budget changes the speed only.

    A product that is cut out (`Sample.mask`) is laid on a fresh, square background for every item,
    drawn like all that is random, before the transform sees it.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Callable[[Tensor], Tensor],
        *,
        repeats: int = 1,
        seed: int = 0,
        cache_side: int | None = None,
        cache_bytes: int = 2 * GIB,
        workers: int | None = None,
        backgrounds: Sequence[str] = tuple(BACKGROUNDS),
    ) -> None:
        """Fill the cache.

        Args:
            samples: the photos.
            transform: gets a `tv_tensors.Image`, uint8 (3, H, W), and returns the item's tensor.
            repeats: items per epoch for each photo, each transformed afresh.
            seed: of the transform, not negative.
            cache_side: shorter side in pixels that larger photos are shrunk to, and longer side of
                products that are cut out; None keeps photos as they are and decodes them for every
                item.
            cache_bytes: photos that would take more than this are not cached.
            workers: threads that fill the cache; None for `default_workers`.
            backgrounds: keys of `experiments.data.backgrounds.BACKGROUNDS`, what products that are
                cut out are laid on.

        Raises:
            DataError: there are no samples, `repeats`, `seed` or `cache_side` is out of range, or
                there is no such background.
            ImageError: a photo cannot be read.
        """
        _check_arguments(samples, repeats, seed, cache_side)
        _check_backgrounds(backgrounds)
        self.samples = tuple(samples)
        self.transform = transform
        self.repeats = repeats
        self.seed = seed
        self.cache_side = cache_side
        self.backgrounds = tuple(backgrounds)
        # Shared memory, or workers that outlive an epoch would not see set_epoch.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._cache: _PhotoCache | None = None
        if cache_side is not None and cache_bytes > 0:
            self._cache = _PhotoCache.fill(self.samples, cache_side, cache_bytes, workers)

    def __len__(self) -> int:
        return len(self.samples) * self.repeats

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a transformed photo and its label.

        Args:
            index: item i is photo i modulo the number of photos.

        Returns:
            What the transform made of the photo, and the label.

        Raises:
            IndexError: the index is out of range.
            ImageError: the photo cannot be read (only where it is not cached).
        """
        index = range(len(self))[index]
        photo = index % len(self.samples)
        pixels = self._photo(photo)
        with _seeded(self.seed, self.epoch, index):
            if len(pixels) == 4:
                other = partial(self._other_photo, photo)
                pixels = lay_on_background(pixels, self.backgrounds, other)
            transformed = self.transform(tv_tensors.Image(pixels))
        return transformed.as_subclass(Tensor), self.samples[photo].label

    @property
    def cached(self) -> bool:
        """Whether the photos are held in memory."""
        return self._cache is not None

    @property
    def epoch(self) -> int:
        """The epoch that items are drawn for."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from now on, in running workers too.

        Args:
            epoch: not negative. Set it before the epoch's loader is iterated: workers prefetch.
        """
        self._epoch.fill_(epoch)

    def _photo(self, index: int) -> Tensor:
        """Return a photo, uint8 (3, H, W), free to be changed in place; RGBA if it is cut out."""
        if self._cache is not None:
            return self._cache[index]
        pixels = np.array(_kept(self.samples[index], self.cache_side))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def _other_photo(self, index: int) -> Tensor:
        """Draw a photo that is not number `index` (unless it is the only one), uint8 (3, H, W)."""
        step = int(torch.randint(1, max(len(self.samples), 2), ()))
        return self._photo((index + step) % len(self.samples))[:3]


class _PhotoCache:
    """Decoded photos of any sizes, end to end in one tensor.

    One tensor rather than one per photo: it reaches a worker that is spawned, not forked, through a
    single file descriptor, where thousands would pass the limit of the process.
    """

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.pixels = torch.empty(bounds[-1], dtype=torch.uint8)
        self.shapes = [(0, 0, 0)] * (len(bounds) - 1)

    @classmethod
    def fill(
        cls, samples: Sequence[Sample], side: int, budget: int, workers: int | None
    ) -> _PhotoCache | None:
        """Decode all photos, unless they would take more than `budget` bytes."""
        with ThreadPoolExecutor(workers or default_workers()) as pool:
            sizes = list(pool.map(lambda sample: _cached_bytes(sample, side), samples))
            if sum(sizes) > budget:
                logger.warning(
                    "%d photos take %.2f GiB at %d px, more than the cache may (%.2f GiB): they "
                    "are decoded anew for every item",
                    len(samples),
                    sum(sizes) / GIB,
                    side,
                    budget / GIB,
                )
                return None
            cache = cls([0, *accumulate(sizes)])
            tasks = pool.map(partial(cache._put, side=side), range(len(samples)), samples)
            for _ in tqdm(
                tasks, total=len(samples), desc="decoding", unit="photo", leave=False, disable=None
            ):
                pass
        return cache

    def __getitem__(self, index: int) -> Tensor:
        """Return a copy of a photo, uint8 (3, H, W), or (4, H, W) if it is cut out."""
        pixels = self.pixels[self.bounds[index] : self.bounds[index + 1]]
        # Channels stay innermost in memory: resizing such a uint8 image is twice as fast.
        return pixels.clone().view(self.shapes[index]).permute(2, 0, 1)

    def _put(self, index: int, sample: Sample, side: int) -> None:
        photo = np.asarray(_kept(sample, side))
        self.pixels.numpy()[self.bounds[index] : self.bounds[index + 1]] = photo.reshape(-1)
        height, width, channels = photo.shape
        self.shapes[index] = (height, width, channels)


def _check_arguments(
    samples: Sequence[Sample], repeats: int, seed: int, cache_side: int | None
) -> None:
    if not samples:
        raise DataError("no photos: a data set needs at least one sample")
    if repeats < 1:
        raise DataError(f"repeats is {repeats}, expected at least 1")
    if seed < 0:
        raise DataError(f"seed is {seed}, expected 0 or more")
    if cache_side is not None and cache_side < 1:
        raise DataError(f"cache_side is {cache_side}, expected a number of pixels, or None")


def _check_backgrounds(backgrounds: Sequence[str]) -> None:
    unknown = [name for name in backgrounds if name not in BACKGROUNDS]
    if unknown or not backgrounds:
        raise DataError(
            f"backgrounds are {', '.join(unknown) or 'none'}, expected some of "
            f"{', '.join(BACKGROUNDS)}"
        )


def _kept(sample: Sample, side: int | None) -> Image.Image:
    """Decode a photo and shrink it: its shorter side, or, as it is laid in a square, its longer."""
    photo = read_sample(sample)
    if sample.mask is not None and side is not None:
        photo.thumbnail((side, side), Image.Resampling.BILINEAR)
        return photo
    return shrink(photo, side)


def _cached_bytes(sample: Sample, side: int) -> int:
    if sample.mask is None:
        width, height = shrunk_size(image_size(sample.path), side)
        return 3 * width * height
    # How much trimming leaves of a cut-out is not in its header.
    width, height = _kept(sample, side).size
    return 4 * width * height


@contextmanager
def _seeded(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Seed torch's global CPU generator for one item and put its state back afterwards."""
    mixed = int(np.random.SeedSequence([seed, epoch, index]).generate_state(1)[0])
    state = torch.get_rng_state()
    # torch.manual_seed would reseed the GPU's generators too, and takes 90 times as long.
    torch.default_generator.manual_seed(mixed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
