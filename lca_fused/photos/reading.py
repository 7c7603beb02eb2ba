"""Reading photos: every file becomes an upright 8-bit image or an error that names it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from lca_fused.photos.colour import UnsupportedModeError, to_rgb, to_rgba
from lca_fused.photos.depth import has_16_bit_colour, read_12_bit_colour
from lca_fused.photos.formats import content_suffix, why_not_read

# Times the shorter side: a longer strip, enlarged to the network's size, fills the memory.
_LONGEST = 50
FRAMES = "lca_fused frames"
"""Key of Image.info where the file has more frames than the one that was read."""
# An MPO's second picture is the same scene for the other eye, or its preview.
_ANIMATED = {"AVIF", "FLI", "GIF", "HEIF", "PNG", "TIFF", "WEBP"}


class ImageError(ValueError):
    """One photo cannot be read.

    Attributes:
        reason: what is wrong with it, without the name of the file.
    """

    # The message alone is enough to build one: that is how a DataLoader re-raises what happened
    # in a worker, and the type would be lost with a second mandatory argument.
    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class _NarrowError(Exception):
    """The photo is a strip."""


class _NotAFileError(Exception):
    """Opening it may wait for ever."""


def read_image(photo: str | Path | Image.Image) -> Image.Image:
    """Decode a photo completely.

    The EXIF orientation is applied, 16 bits are scaled to 8 (12 bits in a file of 16 as 12, see
    `lca_fused.photos.depth`), floats of 0 to 1 to 0 to 255, transparency is laid on white and CMYK
    is converted without its colour profile. Of several frames the first is read.

    Args:
        photo: the file, of any format Pillow reads; or what Pillow made of it.

    Returns:
        The upright photo, mode "RGB", 8 bits per channel.

    Raises:
        ImageError: the file is missing, a directory, a pipe, empty, not an image, truncated, too
            large, over 50 times as long as wide, or of a colour mode without a conversion.
    """
    if not isinstance(photo, Image.Image):
        return _decode(Path(photo), to_rgb)
    try:
        _refuse_strips(*photo.size)
        return to_rgb(ImageOps.exif_transpose(photo), photo.format)
    except (UnsupportedModeError, _NarrowError) as error:
        raise ImageError(f"a Pillow image: {error}", str(error)) from error


def read_rgba(path: str | Path, *, at_least: int | None = None) -> Image.Image:
    """Decode a photo completely, as `read_image` does, but keep its transparency.

    Args:
        path: the file; any format Pillow reads.
        at_least: pixels of either side; a JPEG with more is decoded to a half, a quarter or an
            eighth of its size as far as that leaves so many, in a fraction of the time.

    Returns:
        The upright photo, mode "RGBA", 8 bits per channel; opaque where the file has no
        transparency.

    Raises:
        ImageError: see `read_image`.
    """
    return _decode(Path(path), to_rgba, at_least)


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


def not_a_file(path: Path) -> str | None:
    """Return what is wrong with a path that is no regular file, or None; opens nothing."""
    mode = file_mode(path)
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "a directory, not an image file"
    if mode:
        return "not a file: a pipe, a socket or a device"
    if os.path.islink(path):
        return f"a broken link: it points to {os.readlink(path)}, which is not there"
    return "no such file"


def file_mode(path: Path) -> int:
    """Return the type of what a path leads to; 0 where there is nothing or it cannot be told."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # a name may be too long, or hold what no name can
        return 0


def _decode(
    path: Path,
    convert: Callable[[Image.Image, str | None], Image.Image],
    at_least: int | None = None,
) -> Image.Image:
    try:
        _refuse_what_is_no_file(path)
        with Image.open(path) as image:
            _refuse_strips(*image.size)
            if at_least:
                image.draft(None, (at_least, at_least))
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
            converted.info[FRAMES] = True
    return converted


def _image_error(path: Path, error: Exception) -> ImageError:
    reason = _reason(path, error)
    return ImageError(f"{path}: {reason}", reason)


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
