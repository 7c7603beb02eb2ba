"""Photos of products as vectors of a gallery."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.data.cut_out import CutOut, cut_out_samples
from experiments.data.dataset import Sample
from experiments.data.images import check_images
from experiments.data.torch_dataset import PhotoDataset
from experiments.deploy.gallery_folder import save_photo, sweep
from experiments.deploy.inference import Batch, PhotoReader
from experiments.training.device import Compute
from lca_fused.classifier import Classifier
from lca_fused.description import described
from lca_fused.gallery import SCALE, Enrolled, Gallery, Lookalike, lookalikes
from lca_fused.pretrained import CONFIG_FILE, gallery_of, save_description, save_pretrained

GROUNDS = 8
"""Grounds that a packshot which is cut out is embedded on; their mean is its vector."""


@dataclass
class Embedded:
    """Photos of one product that could be read.

    Attributes:
        paths: of the photos.
        vectors: of unit length, (D,) float32 on the CPU, one each.
        copies: names of their copies in the gallery's folder.
    """

    paths: list[Path] = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    def of(self, photos: Sequence[int]) -> Embedded:
        """Return some of the photos, by their numbers."""
        return Embedded(
            [self.paths[number] for number in photos],
            [self.vectors[number] for number in photos],
            [self.copies[number] for number in photos],
        )

    def enrolled(self, *, mean: bool) -> Enrolled:
        """Return what the gallery is to know: every photo's vector, or their mean.

        The copy that stands for the mean is that of the photo most like it.
        """
        vectors = torch.stack(self.vectors)
        if not mean:
            return Enrolled(vectors, self.copies)
        middle = F.normalize(vectors.mean(dim=0, keepdim=True), dim=1)
        return Enrolled(middle, [self.copies[int((vectors @ middle[0]).argmax())]])


class Embedder:
    """Embeds photos of products, and keeps a copy of each.

    Args:
        classifier: classifier that embeds; moved to the device.
        compute: device; embeddings are computed in float32, whatever its precision.
        folder: folder of the gallery, for the copies.
        product_of: name of the product by photo.
    """

    def __init__(
        self,
        classifier: Classifier,
        compute: Compute,
        folder: Path,
        product_of: Mapping[Path, str],
    ) -> None:
        self.compute = compute
        self.folder = folder
        self.products: dict[str, Embedded] = {}
        self._product_of = product_of
        self._model = classifier.to(compute.device).to(memory_format=torch.channels_last)
        self._preprocessing = described(classifier).preprocessing

    def batches(
        self, max_pixels: int, batch_size: int, workers: int
    ) -> Iterator[tuple[int, dict[Path, str]]]:
        """Embed all photos into `products`.

        Yields:
            After each batch the number of its photos, and those that could not be embedded and
            why.
        """
        reader = PhotoReader(list(self._product_of), self._preprocessing, max_pixels)
        for batch in reader.batches(batch_size, workers):
            yield len(batch.paths), {**batch.unreadable, **self._add(batch)}

    def lay_on_grounds(self, how: CutOut, batch_size: int) -> tuple[int, dict[Path, str]]:
        """Embed packshots anew, cut out on fresh grounds, `GROUNDS` of them each.

        On white they would be more like each other than like photos from a store. Those that cannot
        be cut out, as their mask is not of their size, are taken out of `products`.

        Returns:
            How many were embedded anew, and the photos that were taken out and why.

        Raises:
            DataError: nothing is left of photos that are always to be cut out.
        """
        paths = [path for embedded in self.products.values() for path in embedded.paths]
        samples = cut_out_samples([Sample(path, label) for label, path in enumerate(paths)], how)
        packshots = [sample for sample in samples if sample.mask is not None]
        packshots, bad = check_images(packshots, skip=True)
        problems = {photo.path: photo.reason for photo in bad}
        self._take_out(problems)
        if not packshots:
            return 0, problems
        photos = PhotoDataset(
            packshots,
            self._preprocessing.transform(),
            repeats=GROUNDS,
            cache_side=self._preprocessing.kept_side,
        )
        sums: dict[Path, Tensor] = {}
        for images, labels in DataLoader(photos, batch_size=batch_size):
            vectors = F.normalize(self._embed(images), dim=1)
            for label, vector in zip(labels.tolist(), vectors, strict=True):
                sums[paths[label]] = sums.get(paths[label], 0) + vector
        for embedded in self.products.values():
            embedded.vectors = [
                F.normalize(sums[path], dim=0) if path in sums else vector
                for path, vector in zip(embedded.paths, embedded.vectors, strict=True)
            ]
        return len(packshots), problems

    def _take_out(self, photos: Collection[Path]) -> None:
        for name, embedded in list(self.products.items()):
            left = [number for number, path in enumerate(embedded.paths) if path not in photos]
            if left:
                self.products[name] = embedded.of(left)
            else:
                del self.products[name]

    def _add(self, batch: Batch) -> dict[Path, str]:
        paths = batch.readable
        if not paths:
            return {}
        photos = self._preprocessing.photos_of(batch.images)
        problems = {}
        for path, vector, photo in zip(paths, self._embed(batch.images), photos, strict=True):
            length = vector.norm()
            if not (length.isfinite() and length > 0):
                problems[path] = "the network sees nothing in it: its embedding is zero or infinite"
                continue
            product = self.products.setdefault(self._product_of[path], Embedded())
            product.paths.append(path)
            product.vectors.append(vector / length)
            product.copies.append(save_photo(self.folder, photo))
        return problems

    def _embed(self, images: Tensor) -> Tensor:
        """Return (n, D) float32, on the CPU."""
        images = images.to(self.compute.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            maps = self._model.forward_features(images)
            return self._model.forward_head(maps, pre_logits=True).float().cpu()


def add_to_gallery(
    classifier: Classifier,
    folder: Path,
    products: Mapping[str, Embedded],
    *,
    mean: bool,
    scale: float = SCALE,
) -> Gallery:
    """Write a gallery with products more; killed at any moment, it is as before or as asked for.

    Args:
        classifier: the gallery's, or that of a folder where there is none yet: of its own classes
            nothing is kept; moved to the CPU.
        folder: folder of the gallery, which no other process is changing.
        products: photos of products by their names; each replaces what is known of it.
        mean: whether to keep a vector per product instead of one per photo.
        scale: that of a new gallery.

    Raises:
        GalleryError: the vectors do not go with the gallery's.
        OSError: the folder cannot be written to; the gallery is as before.
    """
    new = not (folder / CONFIG_FILE).exists()
    before = None if new else gallery_of(classifier)
    enrolled = {name: embedded.enrolled(mean=mean) for name, embedded in products.items()}
    gallery = Gallery.of(enrolled, scale) if before is None else before.with_products(enrolled)
    classifier.cpu().set_gallery(gallery)
    (save_pretrained if new else save_description)(classifier, folder)
    sweep(folder, gallery)
    return gallery


def lookalikes_of(
    gallery: Gallery, products: Mapping[str, Embedded]
) -> list[tuple[Path, str, Lookalike]]:
    """Return which photos of products are nearly as like another, with the product of each."""
    photos = [(path, name) for name, embedded in products.items() for path in embedded.paths]
    vectors = torch.stack([v for embedded in products.values() for v in embedded.vectors])
    found = lookalikes(gallery, vectors, [name for _, name in photos])
    return [(*photos[one.photo], one) for one in found]
