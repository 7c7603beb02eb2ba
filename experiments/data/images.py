"""Reading photos: every file becomes an upright 8-bit image or an error that names it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from experiments.data.dataset import DataError, Sample

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_LISTED = 20  # bad files spelled out in one message
_ADVICE = "Remove the file (or repair it), or pass --skip-bad-images to leave it out."


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


class _UnsupportedModeError(Exception):
    """The pixels have no agreed conversion to 8-bit RGB."""


def default_workers() -> int:
    """Threads that decode photos at a time: one a core, at most 8."""
    return min(8, os.cpu_count() or 1)


def read_image(path: str | Path) -> Image.Image:
    """Decode a photo completely.

    The EXIF orientation is applied, 16 bits are scaled to 8, transparency is laid on white and
    CMYK is converted without its colour profile. Of several frames the first is read.

    Args:
        path: the file; any format Pillow reads.

    Returns:
        The upright photo, mode "RGB", 8 bits per channel.

    Raises:
        ImageError: the file is missing, a directory, empty, not an image, truncated, too large or
            of a colour mode without a conversion.
    """
    return _decode(Path(path), _to_rgb)


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
    return _decode(Path(path), _to_rgba)


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
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # see read_image
        raise _image_error(path, error) from error


def find_images(folder: str | Path) -> list[Path]:
    """List the photos in a folder and the folders below it.

    Hidden files and folders (names with a leading dot, e.g. "._front.jpg") are left out, links to
    folders are not followed.

    Args:
        folder: where to look.

    Returns:
        Files whose extension is in `IMAGE_EXTENSIONS` in either case, sorted.
    """
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if _is_photo_name(name)]
    return sorted(found, key=Path.as_posix)


def check_images(
    samples: Sequence[Sample], *, skip: bool, workers: int | None = None
) -> tuple[list[Sample], list[BadImage]]:
    """Decode every photo once to see that it can be read.

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
            pool.map(_problem, files),
            total=len(files),
            desc="checking photos",
            unit="photo",
            leave=False,
            disable=None,  # silent where the output is not a terminal
        )
        bad = [problem for problem in checked if problem is not None]
    if bad and not skip:
        raise DataError(_bad_images_message(bad, len(files)))
    unreadable = {problem.path for problem in bad}
    return [sample for sample in samples if sample.path not in unreadable], bad


def _decode(path: Path, convert: Callable[[Image.Image, str | None], Image.Image]) -> Image.Image:
    try:
        with Image.open(path) as image:
            return convert(ImageOps.exif_transpose(image), image.format)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise _image_error(path, error) from error


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


def _is_photo_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_EXTENSIONS


def _to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    # Older Pillow opens a 16-bit PNG in the 32-bit mode I.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        # Pillow's own conversion clips at 255. The high byte is what it keeps of 16-bit colour.
        high_byte = np.asarray(image) >> 8
        return Image.fromarray(high_byte.astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F", "LAB"}:
        raise _UnsupportedModeError(image.mode)
    if _has_transparency(image):
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), pixels).convert("RGB")
    return image.convert("RGB")


def _to_rgba(image: Image.Image, file_format: str | None) -> Image.Image:
    if _has_transparency(image):
        return image.convert("RGBA")
    return _to_rgb(image, file_format).convert("RGBA")


def _has_transparency(image: Image.Image) -> bool:
    return image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info


def _image_error(path: Path, error: Exception) -> ImageError:
    reason = _reason(path, error)
    return ImageError(f"{path}: {reason}. {_ADVICE}", reason)


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return (
            "too large for a photo: Pillow refuses to decode it, as a small file that unpacks to "
            f"this size can be an attack ({str(error).rstrip('.')}); scale it down"
        )
    if isinstance(error, _UnsupportedModeError):
        return f'colour mode "{error}" has no conversion to RGB; save it with 8 or 16 bits, RGB'
    if isinstance(error, PermissionError) and not path.is_dir():
        return "no permission to read it"
    if path.is_dir():
        return "a directory, not an image file"
    if not path.exists():
        return "no such file"
    if path.stat().st_size == 0:
        return "zero bytes: the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a format that Pillow does not read"
    return f"truncated or damaged ({error})"


def _problem(sample: Sample) -> BadImage | None:
    try:
        read_sample(sample)
    except ImageError as error:
        return BadImage(sample.path, error.reason)
    return None


def _bad_images_message(bad: Sequence[BadImage], total: int) -> str:
    lines = [f"{len(bad)} of {total} photos cannot be read:"]
    lines += [f"  {problem.path}: {problem.reason}" for problem in bad[:_LISTED]]
    if len(bad) > _LISTED:
        lines.append(f"  ... and {len(bad) - _LISTED} more")
    lines.append("Remove them (or repair them), or pass --skip-bad-images to leave them out.")
    return "\n".join(lines)
