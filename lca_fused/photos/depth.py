"""Pixels of more than 8 bits, as 8 bits.

Industrial cameras give 12 bits, which programs save as they are in files of 16: read as 16 bits
such a photo is black. A photo whose brightest value fits into 12 bits is read as one of 12, in
training as in prediction; a photo of 16 bits that is as dark as that all over comes out brighter.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_TWELVE_BITS = 1 << 12
_TIFF_BITS = 258  # BitsPerSample
_ORIENTATION = 0x0112  # of EXIF
DEPTH = "lca_fused depth"
"""Key of `Image.info` that says so where a photo was read as one of 12 bits."""


def to_8_bits(values: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Scale 16-bit values (H, W, ...), of 12 bits if the largest is, to their 8 highest bits."""
    return (values >> (4 if is_12_bits(values) else 8)).astype(np.uint8)


def is_12_bits(values: NDArray[np.unsignedinteger]) -> bool:
    """Return whether no value needs more than 12 bits."""
    return int(values.max(initial=0)) < _TWELVE_BITS


def has_16_bit_colour(image: Image.Image) -> bool:
    """Return whether an image that is opened, not yet decoded, has colours of 16 bits.

    Pillow decodes the high bytes of such colours alone.
    """
    if image.mode not in {"RGB", "RGBA"}:
        return False
    if image.format == "TIFF":
        return 16 in getattr(image, "tag_v2", {}).get(_TIFF_BITS, ())
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def read_12_bit_colour(path: Path, decoded: Image.Image) -> Image.Image | None:
    """Decode 12-bit colours that are stored in 16 bits.

    Args:
        path: the file, with colours of 16 bits.
        decoded: their high bytes, with the file's EXIF orientation.

    Returns:
        The upright photo, "RGB" or "RGBA"; None where the colours are of 16 bits indeed.
    """
    if np.asarray(decoded)[..., :3].max() >= _TWELVE_BITS >> 8:
        return None
    import cv2  # here, as such photos are rare

    data = np.frombuffer(path.read_bytes(), np.uint8)
    stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        return None
    values = stored.astype(np.uint16)
    colours = to_8_bits(values[..., 2::-1])  # from BGR
    if values.shape[2] == 4:
        colours = np.dstack([colours, to_8_bits(values[..., 3])])
    photo = Image.fromarray(np.ascontiguousarray(colours))
    photo.getexif()[_ORIENTATION] = decoded.getexif().get(_ORIENTATION, 1)
    upright = ImageOps.exif_transpose(photo)
    upright.info[DEPTH] = "12 bits"
    return upright
