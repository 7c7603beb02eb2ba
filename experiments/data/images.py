"""Reading photos: every file becomes an upright 8-bit image or an error that names it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from experiments.data.colour import UnsupportedModeError, to_rgb, to_rgba
from experiments.data.dataset import DataError, Sample
from experiments.data.depth import DEPTH, has_16_bit_colour, read_12_bit_colour
from experiments.data.formats import content_suffix, why_not_read
from experiments.data.photo_files import not_a_file

logger = logging.getLogger(__name__)

_LISTED = 20  # bad files spelled out in one message
_ADVICE = "Remove the file (or repair it), or pass --skip-bad-images to leave it out."
_LONGEST = 50  # times the shorter side; enlarged to the network's size a strip fills the memory
_FRAMES = "lca_fused frames"  # key of Image.info
# An MPO's second picture is the same scene for the other eye, or its preview.
_ANIMATED = {"AVIF", "FLI", "GIF", "HEIF", "PNG", "TIFF", "WEBP"}


class ImageError(DataError):
    """One photo cannot be read.

    Attributes:
        reason: what is wrong with it, without the name of the file.
    """

    # The message alone is enough to build one: that is how a DataLoader re-raises what happened
    # in a worker, and the type would be lost with a second mandatory argument.
    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


@dataclass(frozen=True)
class BadImage:
    """A photo that cannot be read.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    path: Path
    reason: str


class _NarrowError(Exception):
    """The photo is a strip."""


class _NotAFileError(Exception):
    """Opening it may wait for ever."""


def default_workers() -> int:
    """Threads that decode photos at a time: one a core, at most 8."""
    return min(8, os.cpu_count() or 1)


def read_image(path: str | Path) -> Image.Image:
    """Decode a photo completely.

    The EXIF orientation is applied, 16 bits are scaled to 8 (12 bits in a file of 16 as 12, see
    `experiments.data.depth`), floats of 0 to 1 to 0 to 255, transparency is laid on white and CMYK
    is converted without its colour profile. Of several frames the first is read.

    Args:
        path: the file; any format Pillow reads.

    Returns:
        The upright photo, mode "RGB", 8 bits per channel.

    Raises:
        ImageError: the file is missing, a directory, a pipe, empty, not an image, truncated, too
            large, over 50 times as long as wide, or of a colour mode without a conversion.
    """
    return _decode(Path(path), to_rgb)


def read_rgba(path: str | Path) -> Image.Image:
    """Decode a photo completely, as `read_image` does, but keep its transparency.

    Args:
        path: the file; any format Pillow reads.

    Returns:
        The upright photo, mode "RGBA", 8 bits per channel; opaque where the file has no
        transparency.

    Raises:
        ImageError: see `read_image`.
    """
    return _decode(Path(path), to_rgba)


def read_cutout(path: str | Path, mask: str | Path) -> Image.Image:
    """Decode a photo whose product is cut out, and trim it to the product.

    Args:
        path: the photo.
        mask: an image of the photo's size, bright on the product and dark around it; `path` itself
            where the photo's own transparency says what is around the product.

    Returns:
        The product's bounding box, mode "RGBA", 8 bits per channel.

    Raises:
        ImageError: either file cannot be read (see `read_image`), they differ in size, or nothing
            is left of the product.
    """
    path, mask = Path(path), Path(mask)
    product = read_rgba(path)
    if mask != path:
        product.putalpha(_read_mask(mask, product.size))
    box = product.getchannel("A").getbbox()
    if box is None:
        reason = "nothing of the product is left" + (f" by {mask}" if mask != path else "")
        raise ImageError(f"{path}: {reason}. {_ADVICE}", reason)
    return product.crop(box)


def read_sample(sample: Sample) -> Image.Image:
    """Decode a sample's photo: a cut-out with its transparency, anything else as RGB.

    Raises:
        ImageError: see `read_image` and `read_cutout`.
    """
    return read_image(sample.path) if sample.mask is None else read_cutout(sample.path, sample.mask)


def image_size(path: str | Path) -> tuple[int, int]:
    """Read the size of a photo from its header, without decoding it.

    Args:
        path: the file.

    Returns:
        The two sides in pixels; in which order depends on the EXIF orientation, which is not read.

    Raises:
        ImageError: the header cannot be read.
    """
    path = Path(path)
    try:
        _refuse_what_is_no_file(path)
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # see read_image
        raise _image_error(path, error) from error


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


def _decode(path: Path, convert: Callable[[Image.Image, str | None], Image.Image]) -> Image.Image:
    try:
        _refuse_what_is_no_file(path)
        with Image.open(path) as image:
            _refuse_strips(*image.size)
            return _marked(convert(_upright(image, path), image.format), image)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise _image_error(path, error) from error


def _refuse_what_is_no_file(path: Path) -> None:
    if os.path.exists(path) and not os.path.isfile(path):
        raise _NotAFileError


def _refuse_strips(width: int, height: int) -> None:
    if max(width, height) > _LONGEST * min(width, height):
        raise _NarrowError(
            f"too narrow: {width} x {height} pixels, one side over {_LONGEST} times the other; "
            "crop it"
        )


def _upright(image: Image.Image, path: Path) -> Image.Image:
    deep = has_16_bit_colour(image)
    image.load()
    colours = read_12_bit_colour(path, image) if deep else None
    return colours or ImageOps.exif_transpose(image)


def _marked(converted: Image.Image, image: Image.Image) -> Image.Image:
    """Note in the info of a photo that the file has more frames than it."""
    with suppress(Exception):  # what follows the first frame may be damaged
        if image.format in _ANIMATED and getattr(image, "is_animated", False):
            converted.info[_FRAMES] = True
    return converted


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


def _image_error(path: Path, error: Exception) -> ImageError:
    reason = _reason(path, error)
    return ImageError(f"{path}: {reason}. {_ADVICE}", reason)


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return (
            "too large for a photo: Pillow refuses to decode it, as a small file that unpacks to "
            f"this size can be an attack ({str(error).rstrip('.')}); scale it down"
        )
    if isinstance(error, UnsupportedModeError):
        return f"{error}; save it with 8 or 16 bits, RGB"
    if isinstance(error, _NarrowError):
        return str(error)
    missing = not_a_file(path)
    if isinstance(error, PermissionError) and missing is None:
        return "no permission to read it"
    if missing is not None:
        return missing
    if os.path.getsize(path) == 0:
        return "zero bytes: the file is empty"
    if isinstance(error, UnidentifiedImageError):
        advice = why_not_read(content_suffix(path) or path.suffix.lower())
        return "not an image, or of a format that is not read" + (f" ({advice})" if advice else "")
    return f"truncated or damaged ({error})"


def _check(sample: Sample) -> BadImage | str | None:
    """Return what is wrong with a photo, or what is particular about how it is read."""
    try:
        image = read_sample(sample)
    except ImageError as error:
        return BadImage(sample.path, error.reason)
    if DEPTH in image.info:
        return "have 12-bit values in 16 bits: read as 12 bits"
    if _FRAMES in image.info:
        return "have several frames or pages: the first is read"
    return None


def _bad_images_message(bad: Sequence[BadImage], total: int) -> str:
    lines = [f"{len(bad)} of {total} photos cannot be read:"]
    lines += [f"  {problem.path}: {problem.reason}" for problem in bad[:_LISTED]]
    if len(bad) > _LISTED:
        lines.append(f"  ... and {len(bad) - _LISTED} more")
    lines.append("Remove them (or repair them), or pass --skip-bad-images to leave them out.")
    return "\n".join(lines)
