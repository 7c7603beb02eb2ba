"""What products that are cut out are laid on in training, so that no ground gives them away.

Packshots stand on white, shelves do not: a network that is trained on white alone learns the
outline against it. Every draw is from torch's global CPU generator, which `PhotoDataset` seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

OtherPhoto = Callable[[], Tensor]
"""Draws another photo than the one that is laid on it, uint8 (3, h, w)."""

_Background = Callable[[int, int, OtherPhoto], Tensor]

_MARGIN = (1.0, 1.2)  # sides of the square that a product is laid in, over its longer side
_COARSEST, _FINEST = 2, 24  # cells of noise along a side
_GRAIN = 20.0  # standard deviation of the noise between neighbouring pixels, of 255
_BLUR_CELLS = (4, 16)  # a blurred photo keeps this many cells along a side


def lay_on_background(
    cutout: Tensor, backgrounds: Sequence[str], other_photo: OtherPhoto
) -> Tensor:
    """Lay a product in the middle of a square background of a random kind, each kind as likely.

    The square is 1 to 1.2 times as wide as the product's longer side, drawn afresh.

    Args:
        cutout: the product on transparency, uint8 (4, H, W), RGBA.
        backgrounds: kinds of background to choose from, keys of `BACKGROUNDS`, at least one.
        other_photo: function that draws a photo to take a background from.

    Returns:
        uint8 (3, S, S).
    """
    cutout = _squared(cutout)
    name = backgrounds[int(torch.randint(len(backgrounds), ()))]
    height, width = cutout.shape[1:]
    ground = BACKGROUNDS[name](height, width, other_photo)
    opacity = cutout[3:] / 255
    mixed = cutout[:3] * opacity + ground * (1 - opacity)
    return mixed.round().clamp(0, 255).to(torch.uint8)


def _squared(cutout: Tensor) -> Tensor:
    """Put transparent margins of a random width around a product, (4, H, W) -> (4, S, S)."""
    height, width = cutout.shape[1:]
    least, most = _MARGIN
    side = round(max(height, width) * (least + (most - least) * float(torch.rand(()))))
    left, top = (side - width) // 2, (side - height) // 2
    return F.pad(cutout, (left, side - width - left, top, side - height - top))


def _solid(_height: int, _width: int, _other_photo: OtherPhoto) -> Tensor:
    return _colour()


def _gradient(height: int, width: int, _other_photo: OtherPhoto) -> Tensor:
    angle = float(2 * math.pi * torch.rand(()))
    down = torch.linspace(-1, 1, height)[:, None] * math.sin(angle)
    across = torch.linspace(-1, 1, width) * math.cos(angle)
    share = (down + across + math.sqrt(2)) / (2 * math.sqrt(2))  # 0..1
    return torch.lerp(_colour(), _colour(), share)


def _noise(height: int, width: int, _other_photo: OtherPhoto) -> Tensor:
    cells = int(torch.randint(_COARSEST, _FINEST + 1, ()))
    patches = _resized(255 * torch.rand(3, cells, cells), height, width)
    return patches + _GRAIN * torch.randn(3, height, width)


def _photo(height: int, width: int, other_photo: OtherPhoto) -> Tensor:
    photo = other_photo()
    top, bottom = _stretch(photo.shape[1])
    left, right = _stretch(photo.shape[2])
    crop = photo[:3, top:bottom, left:right].float()
    # Shrinking to a few cells and enlarging them again blurs as far as a wide kernel would.
    cells = int(torch.randint(_BLUR_CELLS[0], _BLUR_CELLS[1] + 1, ()))
    blurred = F.interpolate(crop[None], size=(cells, cells), mode="area")[0]
    return _resized(blurred, height, width)


BACKGROUNDS: dict[str, _Background] = {
    "solid": _solid,
    "gradient": _gradient,
    "noise": _noise,
    "photo": _photo,
}
"""What a product may be laid on, each a function of height, width and a draw of another photo that
returns float32 that broadcasts to (3, height, width), about 0..255:

- solid: one colour;
- gradient: from one colour to another, in any direction;
- noise: smooth patches of 2 to 24 a side, and grain;
- photo: a crop of another training photo, half its sides or more, blurred past recognition.
"""


def _colour() -> Tensor:
    return 255 * torch.rand(3, 1, 1)


def _stretch(length: int) -> tuple[int, int]:
    """Draw where a stretch of at least half of `length` begins and ends."""
    size = int(torch.randint(math.ceil(length / 2), length + 1, ()))
    start = int(torch.randint(length - size + 1, ()))
    return start, start + size


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(image[None], size=(height, width), mode="bilinear")[0]
