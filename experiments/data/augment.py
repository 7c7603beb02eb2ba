"""What a training photo goes through before the network, beside what every photo does."""

from __future__ import annotations

from dataclasses import dataclass

from torchvision.transforms import v2

from lca_fused.preprocessing import Preprocessing

_BLUR_KERNEL = 5  # px


@dataclass(frozen=True)
class Augmentation:
    """How strongly training photos are changed."""

    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Least and greatest share of the photo's area that a training crop covers, in (0, 1]."""

    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest width / height of a training crop, before it is made square."""

    rotation: float = 30.0
    """Photos are turned by up to this many degrees either way: products are held, not stood."""

    perspective: float = 0.3
    """How far a corner may move inwards, as a share of half a side, in [0, 1]; 0 for never."""

    perspective_probability: float = 0.5
    """Share of training photos that are distorted in perspective."""

    brightness: float = 0.4
    """Brightness is scaled by a factor within 1 - this and 1 + this."""

    contrast: float = 0.4
    """Contrast is scaled by a factor within 1 - this and 1 + this."""

    saturation: float = 0.4
    """Saturation is scaled by a factor within 1 - this and 1 + this."""

    hue: float = 0.03
    """Hue is turned by up to this share of the colour circle, in [0, 0.5]; 0 is much faster."""

    blur: float = 0.1
    """Share of training photos that are blurred (Gaussian, sigma up to 1.5 px)."""

    erase: float = 0.0
    """Share of training photos of which a rectangle is hidden."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: a value is outside its range.
        """
        smallest, largest = self.crop_scale
        if not 0 < smallest <= largest <= 1:
            raise ValueError(
                f"crop_scale is {self.crop_scale}, expected 0 < least <= greatest <= 1"
            )
        narrowest, widest = self.crop_ratio
        if not 0 < narrowest <= widest:
            raise ValueError(f"crop_ratio is {self.crop_ratio}, expected 0 < least <= greatest")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation is {self.rotation}, expected 0 to 180 degrees")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is {self.hue}, expected 0 to 0.5")
        for name in ("perspective", "perspective_probability", "blur", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")


SMALL_PHOTOS = Augmentation(crop_scale=(0.5, 1.0), rotation=15.0, perspective=0.0, hue=0.0)
"""A third of the default's time a photo, for a network that takes no longer than that itself."""


def training_transform(preprocessing: Preprocessing, strength: Augmentation) -> v2.Transform:
    """Build the random transform of a training photo.

    There is no horizontal flip: packs carry text and logos, which no shelf shows mirrored.

    Args:
        preprocessing: what the network expects of its input: its size, interpolation and scaling.
        strength: strength of each step; a step of strength 0 is left out.

    Returns:
        A transform of an image tensor, uint8 (3, H, W) of any size, to a float32 tensor
        (3, size, size), normalised. It draws from torch's global CPU generator.
    """
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(
            preprocessing.image_size,
            scale=strength.crop_scale,
            ratio=strength.crop_ratio,
            interpolation=v2.InterpolationMode(preprocessing.interpolation),
            antialias=True,
        )
    ]
    # Everything random runs on the crop, which is smaller than the photo, and on uint8. The mean
    # colour is 0 once normalised: what a distortion uncovers says nothing.
    fill = [round(255 * value) for value in preprocessing.mean]
    if strength.rotation:
        bilinear = v2.InterpolationMode.BILINEAR
        steps.append(v2.RandomRotation(strength.rotation, interpolation=bilinear, fill=fill))
    if strength.perspective and strength.perspective_probability:
        steps.append(
            v2.RandomPerspective(
                strength.perspective, p=strength.perspective_probability, fill=fill
            )
        )
    if any((strength.brightness, strength.contrast, strength.saturation, strength.hue)):
        steps.append(
            v2.ColorJitter(
                strength.brightness, strength.contrast, strength.saturation, strength.hue
            )
        )
    if strength.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(_BLUR_KERNEL, (0.1, 1.5))], p=strength.blur))
    steps += preprocessing.normalization()
    if strength.erase:
        # After the normalisation, where 0 is the mean colour.
        steps.append(v2.RandomErasing(p=strength.erase, scale=(0.02, 0.2), value=0))
    return v2.Compose(steps)
