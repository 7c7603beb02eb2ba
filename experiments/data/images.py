"""The photos of a data set: cut-outs among them, and a check that all can be read."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from experiments.data.dataset import DataError, Ground, Sample
from experiments.data.plain_ground import fill_ground
from lca_fused.photos.depth import DEPTH
from lca_fused.photos.reading import FRAMES, ImageError, read_image, read_rgba

logger = logging.getLogger(__name__)

_LISTED = 20  # bad files spelled out in one message


@dataclass(frozen=True)
class BadImage:
    """A photo that cannot be read.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    path: Path
    reason: str


class NothingLeftError(ImageError):
    """A photo can be read, but once it is cut out there is nothing in it."""


def default_workers() -> int:
    """Threads that decode photos at a time: one per core, at most 8."""
    return min(8, os.cpu_count() or 1)


def read_cutout(path: Path, mask: Path | Ground) -> Image.Image:
    """Decode a photo whose product is cut out, and trim it to the product.

    Args:
        path: the photo.
        mask: an image of the photo's size, bright on the product and dark around it; `path` itself
            where the photo's own transparency says what is around the product; `Ground` where what
            a flood fill comes to is (see `experiments.data.plain_ground`).

    Returns:
        The product's bounding box, mode "RGBA", 8 bits per channel.

    Raises:
        ImageError: either file cannot be read (see `read_image`), or they differ in size.
        NothingLeftError: nothing is left of the product.
    """
    product = read_rgba(path)
    reason = "nothing of the product is left"
    if isinstance(mask, Ground):
        product.putalpha(fill_ground(product).mask(product.size))
    elif mask != path:
        product.putalpha(_read_mask(mask, product.size))
        reason += f" by {mask}"
    box = product.getchannel("A").getbbox()
    if box is None:
        raise NothingLeftError(f"{path}: {reason}", reason)
    return product.crop(box)


def read_sample(sample: Sample) -> Image.Image:
    """Decode a sample's photo: a cut-out with its transparency, anything else as RGB.

    Raises:
        ImageError: see `read_image` and `read_cutout`.
    """
    return read_image(sample.path) if sample.mask is None else read_cutout(sample.path, sample.mask)


def check_images(
    samples: Sequence[Sample], *, skip: bool, workers: int | None = None
) -> tuple[list[Sample], list[BadImage]]:
    """Decode every photo once to see that it can be read; log what is particular about some.

    Args:
        samples: the photos; a file listed twice is decoded once.
        skip: leave unreadable photos out instead of raising.
        workers: threads; None for `default_workers`.

    Returns:
        The samples that can be read, in their order, and the files that cannot.

    Raises:
        DataError: some photos cannot be read and `skip` is False; lists all of them (the first 20
            by name).
    """
    files = list({sample.path: sample for sample in samples}.values())
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        checked = tqdm(
            pool.map(_check, files),
            total=len(files),
            desc="checking photos",
            unit="photo",
            leave=False,
            disable=None,  # silent where the output is not a terminal
        )
        results = list(checked)
    bad = [result for result in results if isinstance(result, BadImage)]
    for remark, count in Counter(result for result in results if isinstance(result, str)).items():
        logger.info("%d photos %s", count, remark)
    if bad and not skip:
        raise DataError(_bad_images_message(bad, len(files)))
    unreadable = {problem.path for problem in bad}
    return [sample for sample in samples if sample.path not in unreadable], bad


def _read_mask(mask: Path, size: tuple[int, int]) -> Image.Image:
    """Read a mask as alpha, mode "L": whatever is in the brighter half of its range is product."""
    grey = np.asarray(read_image(mask).convert("L"))
    if grey.shape != size[::-1]:
        reason = (
            f"the mask {mask} is {grey.shape[1]} x {grey.shape[0]} pixels, its photo {size[0]} x "
            f"{size[1]}; remove the mask to use the photo as it is"
        )
        raise ImageError(reason, reason)
    # Some programs write binary masks as 0 and 1 rather than as 0 and 255.
    product = grey > 0.5 * grey.max()
    return Image.fromarray(np.where(product, 255, 0).astype(np.uint8))


def _check(sample: Sample) -> BadImage | str | None:
    """Return what is wrong with a photo, or what is particular about how it is read."""
    try:
        image = read_sample(sample)
    except ImageError as error:
        return BadImage(sample.path, error.reason)
    if DEPTH in image.info:
        return "have 12-bit values in 16 bits: read as 12 bits"
    if FRAMES in image.info:
        return "have several frames or pages: the first is read"
    return None


def _bad_images_message(bad: Sequence[BadImage], total: int) -> str:
    lines = [f"{len(bad)} of {total} photos cannot be read:"]
    lines += [f"  {problem.path}: {problem.reason}" for problem in bad[:_LISTED]]
    if len(bad) > _LISTED:
        lines.append(f"  ... and {len(bad) - _LISTED} more")
    lines.append("Remove them (or repair them), or pass --skip-bad-images to leave them out.")
    return "\n".join(lines)
