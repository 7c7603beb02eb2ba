"""Photos of unknown quality on their way into a network: each a tensor, or a reason why not."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from experiments.data import photo_files
from experiments.data.left_out import describe
from lca_fused.photos.reading import ImageError, image_size
from lca_fused.prediction import Prepared
from lca_fused.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

MEGAPIXEL = 1_000_000
MAX_MEGAPIXELS = 178  # Pillow refuses over twice its MAX_IMAGE_PIXELS, whatever is allowed here


def check_megapixels(limit: float) -> None:
    """Check the `--max-megapixels` of a command.

    Raises:
        ValueError: it is not above 0, or more than Pillow decodes.
    """
    if not 0 < limit <= MAX_MEGAPIXELS:
        raise ValueError(
            f"--max-megapixels is {limit}; expected at most {MAX_MEGAPIXELS}, the largest that "
            "Pillow decodes, and more than 0; scale larger photos down"
        )


@dataclass(frozen=True)
class Batch:
    """Some photos, in the order they were given.

    Attributes:
        paths: files of all photos.
        images: photos that could be read, (n, 3, S, S) float32, normalised.
        unreadable: files that could not be read, and what is wrong with each.
    """

    paths: tuple[Path, ...]
    images: Tensor
    unreadable: dict[Path, str]

    @property
    def readable(self) -> list[Path]:
        """Paths of `images`."""
        return [path for path in self.paths if path not in self.unreadable]


class PhotoReader(Dataset[tuple[Path, Tensor | str]]):
    """Photos as the network is scored on: the transform of the test photos, and nothing else.

    Args:
        paths: files of the photos.
        preprocessing: what the network expects of its input.
        max_pixels: largest size of a photo; one with more is refused before it is decoded. Decoding
            takes about 12 bytes per pixel, 19 with transparency. One with more than
            `MAX_MEGAPIXELS` is refused in any case.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        max_pixels: int,
    ) -> None:
        self.paths = tuple(paths)
        self.max_pixels = max_pixels
        self._prepared = Prepared(preprocessing)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, Tensor | str]:
        """Return a photo's path and its tensor (3, S, S), or what is wrong with it."""
        path = self.paths[index]
        try:
            if os.path.isdir(path):
                return path, _folder_problem(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                self._check_size(path)
                image = self._prepared(path)
        except ImageError as error:
            return path, error.reason
        except Exception as error:  # one photo, whatever is wrong with it, does not end the others
            return path, f"cannot be read ({type(error).__name__}: {error})"
        return path, image

    def batches(self, batch_size: int, workers: int) -> Iterator[Batch]:
        """Yield all photos in order, decoded by `workers` processes (0: by this one)."""
        return iter(
            DataLoader(self, batch_size=batch_size, num_workers=workers, collate_fn=_collate)
        )

    def _check_size(self, path: Path) -> None:
        width, height = image_size(path)
        if width * height > self.max_pixels:
            reason = (
                f"too large: {width} x {height} pixels, more than {self.max_pixels / MEGAPIXEL:g} "
                "megapixels; scale it down, or allow more where there is memory for it"
            )
            raise ImageError(f"{path}: {reason}", reason)


def find_photos(arguments: Iterable[Path]) -> list[Path]:
    """Return the photos that files and folders name, each once, in order.

    A folder gives the photos below it, and what looks like photos and cannot be read: reading it
    says what is wrong. What else is left out is logged. A folder without any is returned itself,
    as is anything that is named and is not there or not a photo.
    """
    found = [photo for path in arguments for photo in _below(path)]
    unique: dict[str, Path] = {}
    for path in found:
        unique.setdefault(os.path.abspath(path), path)
    return list(unique.values())


def _below(path: Path) -> list[Path]:
    if not os.path.isdir(path):
        return [path]
    found = photo_files.find_photos(path)
    for line in describe(found.left_out, path):
        logger.info("%s: %s", path, line)
    unread = [item.path for item in found.left_out if item.expected_photo]
    return sorted([*found.photos, *unread], key=Path.as_posix) or [path]


def _folder_problem(folder: Path) -> str:
    """Return why a folder is among the photos: there are none in it, or it cannot be searched."""
    unreadable = photo_files.list_folder(folder).left_out
    if [item.path for item in unreadable] == [folder]:
        return f"a folder that cannot be read: {unreadable[0].detail}"
    return "a folder without photos"


def _collate(items: list[tuple[Path, Tensor | str]]) -> Batch:
    images = [image for _, image in items if isinstance(image, Tensor)]
    return Batch(
        paths=tuple(path for path, _ in items),
        images=torch.stack(images) if images else torch.empty(0, 3, 1, 1),
        unreadable={path: reason for path, reason in items if isinstance(reason, str)},
    )
