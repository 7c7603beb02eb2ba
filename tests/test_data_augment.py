"""Training photos vary and keep their handedness; evaluation is plain and exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from experiments.data.augment import Augmentation, training_transform
from lca_fused.preprocessing import Preprocessing

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
NONE = {
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (1.0, 1.0),
    "rotation": 0.0,
    "perspective": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "blur": 0.0,
}


def preprocessing(image_size: int, **options) -> Preprocessing:
    return Preprocessing(image_size=image_size, mean=MEAN, std=STD, **options)


def photo(height: int = 40, width: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    return tv_tensors.Image(pixels)


def normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels.as_subclass(Tensor) / 255 - mean) / std


def draws(count: int, image: Tensor, **strength) -> list[Tensor]:
    transform = training_transform(preprocessing(24), Augmentation(**{**NONE, **strength}))
    torch.manual_seed(0)
    return [transform(image).as_subclass(Tensor) for _ in range(count)]


def test_without_any_strength_only_size_and_normalisation_remain():
    image = photo(24, 24)
    for drawn in draws(5, image):
        torch.testing.assert_close(drawn, normalised(image))


@pytest.mark.parametrize(
    "strength",
    [
        {"crop_scale": (0.4, 1.0)},
        {"rotation": 30.0},
        {"perspective": 0.3},
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.4},
        {"hue": 0.1},
        {"blur": 0.5},
        {"erase": 0.5},
    ],
)
def test_each_strength_changes_photos_in_its_own_way(strength):
    plain, *_ = draws(1, photo())
    drawn = draws(20, photo(), **strength)
    assert all(image.shape == (3, 24, 24) and image.dtype == torch.float32 for image in drawn)
    assert any((image - plain).abs().max() > 0.05 for image in drawn)
    assert len({image.sum().item() for image in drawn}) > 1


def test_crop_ratio_shapes_the_crop():
    ends_white = torch.zeros((3, 20, 40), dtype=torch.uint8)
    ends_white[:, :, [0, -1]] = 255
    (square,) = draws(1, tv_tensors.Image(ends_white))
    (wide,) = draws(1, tv_tensors.Image(ends_white), crop_ratio=(2.0, 2.0))
    assert wide[:, :, 0].min() > wide[:, :, 12].max()
    assert square.amax(dim=(1, 2)).tolist() == square.amin(dim=(1, 2)).tolist()


def test_no_photo_is_mirrored():
    left_half_white = torch.zeros((3, 40, 40), dtype=torch.uint8)
    left_half_white[:, :, :20] = 255
    transform = training_transform(preprocessing(24), Augmentation())
    torch.manual_seed(0)
    for _ in range(40):
        drawn = transform(tv_tensors.Image(left_half_white)).mean(dim=(0, 1))
        assert drawn[:12].mean() >= drawn[12:].mean()


def test_what_perspective_uncovers_has_the_mean_colour():
    white = tv_tensors.Image(torch.full((3, 24, 24), 255, dtype=torch.uint8))
    lowest = min(
        image.abs().amax(0).min().item()
        for image in draws(10, white, perspective=0.9, perspective_probability=1.0)
    )
    assert lowest < 0.01  # half a grey level


@pytest.mark.parametrize(
    ("size", "crop", "side"),
    [(224, 0.875, 256), (224, 1.0, 224), (224, 0.9, 248), (224, 224 / 232, 232), (100, 0.875, 114)],
)
def test_evaluation_resizes_to_the_side_that_timm_and_torchvision_resize_to(size, crop, side):
    assert preprocessing(size, crop=crop).resized_side == side


@pytest.mark.parametrize(("size", "side"), [(224, 336), (33, 50)])
def test_photos_are_kept_larger_than_the_input_for_crops_to_enlarge(size, side):
    assert preprocessing(size).kept_side == side


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_photos_are_resized_as_the_network_wants_them(interpolation):
    image = photo(40, 60)
    drawn = preprocessing(20, crop=1.0, interpolation=interpolation).transform()(image)
    expected = v2.functional.resize(image, 20, v2.InterpolationMode(interpolation), antialias=True)
    torch.testing.assert_close(drawn, normalised(expected[:, :, 5:25]))


def test_a_photo_can_become_a_square_whole():
    drawn = preprocessing(20, crop=1.0, keep_ratio=False).transform()(photo(40, 60))
    expected = v2.functional.resize(photo(40, 60), [20, 20], antialias=True)
    torch.testing.assert_close(drawn, normalised(expected))


def test_the_normalisation_is_undone_for_the_eye():
    shown = preprocessing(24).photos_of(normalised(photo(24, 24))[None])[0]
    assert torch.equal(shown.permute(2, 0, 1), photo(24, 24).as_subclass(Tensor))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 50), (50, 32)])
def test_evaluation_takes_the_centre(height, width):
    image = photo(height, width)
    top, left = (height - 28) // 2, (width - 28) // 2
    expected = normalised(image[:, top : top + 28, left : left + 28])
    drawn = preprocessing(28).transform()(image)
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.as_subclass(Tensor), expected)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (Preprocessing, "image_size", 0),
        (Preprocessing, "image_size", True),
        (Preprocessing, "crop", 0.0),
        (Preprocessing, "crop", 1.1),
        (Preprocessing, "interpolation", "nearest"),
        (Preprocessing, "mean", (0.5, 0.5)),
        (Preprocessing, "std", (0.5, 0.0, 0.5)),
        (Preprocessing, "std", (0.5, float("nan"), 0.5)),
        (Augmentation, "crop_scale", (0.0, 1.0)),
        (Augmentation, "crop_scale", (0.9, 0.4)),
        (Augmentation, "crop_ratio", (2.0, 1.0)),
        (Augmentation, "rotation", 190.0),
        (Augmentation, "hue", 0.6),
        (Augmentation, "perspective", 1.1),
        (Augmentation, "perspective_probability", -0.1),
        (Augmentation, "blur", 2.0),
        (Augmentation, "erase", -1.0),
        (Augmentation, "brightness", -0.1),
        (Augmentation, "contrast", -0.1),
        (Augmentation, "saturation", -0.1),
    ],
)
def test_values_out_of_range_are_named(options, name, value):
    with pytest.raises(ValueError, match=rf"{name} is .*expected"):
        options(**{name: value})


def test_the_command_line_knows_the_options(capsys):
    tyro = pytest.importorskip("tyro")
    args = ["--crop-scale", "0.5", "0.9", "--hue", "0"]
    assert tyro.cli(Augmentation, args=args) == Augmentation(crop_scale=(0.5, 0.9), hue=0.0)
    with pytest.raises(SystemExit):
        tyro.cli(Augmentation, args=["--help"])
    assert "sigma up to 1.5 px" in " ".join(capsys.readouterr().out.replace("│", "").split())
