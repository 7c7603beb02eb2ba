"""Colour modes of photos, each as 8-bit RGB or RGBA."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lca_fused.photos.depth import DEPTH, is_12_bits, to_8_bits


class UnsupportedModeError(Exception):
    """The pixels have no agreed conversion to 8-bit RGB."""


def to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    """Convert an image to RGB, transparency laid on white.

    Args:
        image: the decoded image.
        file_format: the format it was stored in, as Pillow calls it.

    Raises:
        UnsupportedModeError: there is no agreed conversion.
    """
    # Older Pillow opens a 16-bit PNG in the 32-bit mode I.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PNG"):
        # Pillow's own conversion clips at 255. The high byte is what it keeps of 16-bit colour.
        values = np.asarray(image).astype(np.uint16)
        grey = Image.fromarray(to_8_bits(values)).convert("RGB")
        if is_12_bits(values):
            grey.info[DEPTH] = "12 bits"
        return grey
    if image.mode == "F":
        return _floats_to_rgb(np.asarray(image))
    if image.mode in {"I", "LAB"}:
        raise UnsupportedModeError(f'colour mode "{image.mode}" has no conversion to RGB')
    if _has_transparency(image):
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), pixels).convert("RGB")
    return image.convert("RGB")


def _floats_to_rgb(values: NDArray[np.float32]) -> Image.Image:
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:  # nor is it with NaN
        raise UnsupportedModeError(
            f'colour mode "F" with values from {low:g} to {high:g}, expected 0 to 1'
        )
    return Image.fromarray((255 * values).round().astype(np.uint8)).convert("RGB")


def to_rgba(image: Image.Image, file_format: str | None) -> Image.Image:
    """Convert an image to RGBA; see `to_rgb`."""
    if _has_transparency(image):
        return image.convert("RGBA")
    return to_rgb(image, file_format).convert("RGBA")


def _has_transparency(image: Image.Image) -> bool:
    return image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info
