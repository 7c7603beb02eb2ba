"""What a photo goes through before a network sees it: one transform, in training and afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A training crop may enlarge a part of a photo, which is therefore kept larger than the input.
_KEPT = 1.5


@dataclass(frozen=True)
class Preprocessing:
    """The evaluation transform of a network: its input size, and how its input was scaled.

    A photo is shrunk to `kept_side` (Pillow, bilinear), resized, cropped to its centre, scaled to
    0..1 and normalised.

    Attributes:
        image_size: S, side of the square the network sees, in pixels.
        crop: share of the resized photo's shorter side that the square spans, above 0 to 1.
        interpolation: the interpolation of the resizing.
        keep_ratio: whether resizing keeps width : height; without, a photo becomes a square whole.
        mean: the mean of each channel, RGB, of values in 0..1.
        std: the standard deviation of each channel, RGB, of values in 0..1.

    Raises:
        ValueError: a value is out of its range.
    """

    image_size: int = 224
    crop: float = 0.875
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    keep_ratio: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if isinstance(self.image_size, bool) or not isinstance(self.image_size, int):
            raise ValueError(f"image_size is {self.image_size!r}; expected a number of pixels")
        if self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}; expected at least 1 pixel")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}; expected above 0 to 1")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(
                f"interpolation is {self.interpolation!r}; expected bilinear or bicubic"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name} is {values}; expected a number for each of R, G and B")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std is {self.std}; expected numbers above 0")

    @property
    def resized_side(self) -> int:
        """Shorter side in pixels of the photo that the square is cropped from."""
        return math.floor(self.image_size / self.crop + 1e-6)  # 224 / (224 / 232) is 232

    @property
    def kept_side(self) -> int:
        """Shorter side in pixels that larger photos are shrunk to before anything else."""
        return math.ceil(_KEPT * self.image_size)

    def transform(self) -> v2.Transform:
        """Return the transform of a kept photo, uint8 (3, H, W), to float32 (3, S, S)."""
        side = self.resized_side
        return v2.Compose(
            [
                v2.Resize(
                    side if self.keep_ratio else (side, side),
                    interpolation=v2.InterpolationMode(self.interpolation),
                    antialias=True,
                ),
                v2.CenterCrop(self.image_size),
                *self.normalization(),
            ]
        )

    def normalization(self) -> list[v2.Transform]:
        """Return the last steps: uint8 to float32 in 0..1, less the mean, by the deviation."""
        return [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(self.mean), list(self.std), inplace=True),
        ]

    def photos_of(self, images: Tensor) -> Tensor:
        """Undo the normalisation: (N, 3, S, S) -> (N, S, S, 3) uint8 on the CPU, to be shown."""
        mean = images.new_tensor(self.mean)[:, None, None]
        std = images.new_tensor(self.std)[:, None, None]
        pixels = (255 * (images * std + mean)).round().clamp(0, 255)
        return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu()

    def images_of(self, photos: Tensor) -> Tensor:
        """Normalise what `photos_of` returned: (N, S, S, 3) uint8 -> (N, 3, S, S) float32."""
        return v2.Compose(self.normalization())(photos.permute(0, 3, 1, 2))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as a config.json holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return what `to_dict` was called on.

        Raises:
            ValueError: a value is of another type or out of its range, or has another name.
        """
        arguments: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ValueError(f"preprocessing is {dict(values)}: {error}") from error


def shrink(photo: Image.Image, side: int | None) -> Image.Image:
    """Shrink a photo so that its shorter side is `side` pixels, unless it is no longer already."""
    size = shrunk_size(photo.size, side)
    # Pillow's bilinear filter widens with the scale, that is it does not alias.
    return photo if size == photo.size else photo.resize(size, Image.Resampling.BILINEAR)


def shrunk_size(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Return the width and height that `shrink` gives a photo of this width and height."""
    shorter = min(size)
    if side is None or shorter <= side:
        return size
    return round(size[0] * side / shorter), round(size[1] * side / shorter)
