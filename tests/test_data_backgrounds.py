"""Products that are cut out are laid on fresh, repeatable backgrounds, and only on those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from experiments.data.augment import Augmentation, training_transform
from experiments.data.backgrounds import BACKGROUNDS, lay_on_background
from experiments.data.dataset import DataError, Sample
from experiments.data.images import check_images, read_cutout
from experiments.data.torch_dataset import PhotoDataset
from lca_fused.photos.reading import ImageError
from lca_fused.preprocessing import Preprocessing

RED, PHOTO = (220, 20, 20), (10, 200, 90)


def write_cutout(path: Path, side: int = 40) -> Sample:
    """Write a red disc on transparent ground; its bounding box is the whole image."""
    rows, columns = np.ogrid[:side, :side]
    middle = (side - 1) / 2
    inside = (rows - middle) ** 2 + (columns - middle) ** 2 <= (side / 2) ** 2
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., :3] = RED
    pixels[..., 3] = 255 * inside
    Image.fromarray(pixels).save(path)
    return Sample(path, 0, mask=path)


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    other = tmp_path / "other.png"
    Image.new("RGB", (30, 50), PHOTO).save(other)
    return [write_cutout(tmp_path / "cutout.png"), Sample(other, 1)]


def plain(samples: list[Sample], **options) -> PhotoDataset:
    return PhotoDataset(samples, v2.Identity(), workers=1, **options)


def around(image: Tensor) -> Tensor:
    """Return the four corners, which the disc leaves free, (3, 4)."""
    return image[:, [0, 0, -1, -1], [0, -1, 0, -1]]


@pytest.mark.parametrize("name", BACKGROUNDS)
@pytest.mark.parametrize("cache_side", [None, 40])
def test_the_product_stays_and_its_ground_is_drawn_afresh(samples, name, cache_side):
    dataset = plain(samples, cache_side=cache_side, repeats=2, backgrounds=[name])
    image, label = dataset[0]
    assert (image.dtype, label) == (torch.uint8, 0)
    middle = image.shape[1] // 2
    assert image[:, middle, middle].tolist() == list(RED)
    if name == "photo":
        assert (around(image).float() - torch.tensor(PHOTO)[:, None]).abs().max() <= 1
        return
    dataset.set_epoch(1)
    next_epoch = dataset[0][0]
    dataset.set_epoch(0)
    assert not torch.equal(around(image), around(next_epoch))
    assert not torch.equal(around(image), around(dataset[2][0])), "the photo's other draw"
    assert torch.equal(image, dataset[0][0])


def test_a_product_is_laid_in_a_square_with_a_margin_that_is_drawn(tmp_path):
    Image.new("RGBA", (20, 80), (*RED, 255)).save(tmp_path / "tall.png")
    sample = Sample(tmp_path / "tall.png", 0, mask=tmp_path / "tall.png")
    dataset = plain([sample], cache_side=40, repeats=20, backgrounds=["photo"])
    sides = set()
    for image, _ in dataset:
        _, height, width = image.shape
        assert height == width
        assert (image == torch.tensor(RED)[:, None, None]).all(), "of the photo itself"
        sides.add(height)
    assert 40 <= min(sides) < max(sides) <= 48, "its longer side is kept at 40"
    image = plain([sample], backgrounds=["solid"])[0][0]
    product = (image == torch.tensor(RED)[:, None, None]).all(dim=0)
    rows, columns = product.any(dim=1), product.any(dim=0)
    assert (int(rows.sum()), int(columns.sum())) == (80, 20)
    for along in (rows, columns):
        before, after = along.nonzero()[[0, -1], 0].tolist()
        assert abs(before - (len(along) - 1 - after)) <= 1, "in the middle"


def test_every_kind_is_drawn_and_no_other(samples):
    torch.manual_seed(0)
    cutout = torch.zeros(4, 8, 8, dtype=torch.uint8)
    calls = []

    def other() -> Tensor:
        calls.append(1)
        return torch.zeros(3, 6, 6, dtype=torch.uint8)

    for _ in range(40):
        lay_on_background(cutout, ["solid", "photo"], other)
    assert 5 < len(calls) < 35
    solid = lay_on_background(cutout, ["solid"], other)
    assert (solid == solid[:, :1, :1]).all()
    gradient = lay_on_background(cutout, ["gradient"], other).int()
    assert len(gradient.unique()) > 3
    assert gradient.diff(dim=1).abs().max() < 70, "smooth"


def test_the_edge_of_a_product_is_mixed_by_its_opacity():
    cutout = torch.tensor([200, 100, 0, 128], dtype=torch.uint8)[:, None, None].expand(4, 2, 2)

    def black() -> Tensor:
        return torch.zeros(3, 4, 4, dtype=torch.uint8)

    mixed = lay_on_background(cutout, ["photo"], black)
    assert mixed[:, 0, 0].tolist() == [100, 50, 0]


def test_items_are_the_same_from_any_number_of_workers(samples):
    transform = training_transform(Preprocessing(image_size=16), Augmentation())
    dataset = PhotoDataset(samples, transform, repeats=8, seed=3, cache_side=32, workers=1)
    alone, shared = (
        torch.cat([images for images, _ in DataLoader(dataset, batch_size=4, num_workers=workers)])
        for workers in (0, 2)
    )
    assert torch.equal(alone, shared)
    dataset.seed = 4
    assert not torch.equal(dataset[0][0], alone[0])


def test_a_photo_that_is_no_cutout_is_drawn_as_if_there_were_none(samples):
    transform = training_transform(Preprocessing(image_size=16), Augmentation())
    alone = PhotoDataset([samples[1], samples[1]], transform, workers=1)
    beside = PhotoDataset([samples[0], samples[1]], transform, workers=1)
    assert torch.equal(alone[1][0], beside[1][0])


def test_a_single_cutout_is_its_own_other_photo(samples):
    image, _ = plain(samples[:1], backgrounds=["photo"])[0]
    assert (around(image).float() - torch.tensor(RED)[:, None]).abs().max() <= 1


def test_the_cache_keeps_cutouts_as_they_are_read(samples):
    cached, read = plain(samples, cache_side=20), plain(samples, cache_side=20, cache_bytes=0)
    assert cached.cached
    assert not read.cached
    assert torch.equal(cached[0][0], read[0][0])
    assert cached[0][0].shape[1] < 40


@pytest.mark.parametrize("names", [[], ["solid", "beach"]])
def test_backgrounds_are_checked(samples, names):
    with pytest.raises(DataError, match="expected some of solid, gradient, noise, photo"):
        plain(samples, backgrounds=names)


@pytest.mark.parametrize("bright", [1, 255])
def test_masks_may_be_written_as_1_or_255(tmp_path, bright):
    inside = np.zeros((20, 30), np.uint8)
    inside[5:15, 10:20] = bright
    Image.fromarray(inside).save(tmp_path / "mask.png")
    Image.new("RGB", (30, 20), RED).save(tmp_path / "photo.png")
    product = np.asarray(read_cutout(tmp_path / "photo.png", tmp_path / "mask.png"))
    assert product.shape == (10, 10, 4)
    assert (product == [*RED, 255]).all()


def test_a_mask_that_leaves_nothing_is_named(tmp_path):
    Image.new("L", (30, 20), 0).save(tmp_path / "mask.png")
    Image.new("RGB", (30, 20), RED).save(tmp_path / "photo.png")
    sample = Sample(tmp_path / "photo.png", 0, tmp_path / "mask.png")
    with pytest.raises(ImageError, match=r"nothing of the product is left by .*mask\.png"):
        read_cutout(sample.path, sample.mask)
    readable, (bad,) = check_images([sample], skip=True)
    assert not readable
    assert bad.path == sample.path


def test_a_damaged_mask_is_found_before_training(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no image")
    Image.new("RGB", (30, 20), RED).save(tmp_path / "photo.png")
    sample = Sample(tmp_path / "photo.png", 0, tmp_path / "mask.png")
    with pytest.raises(DataError, match="not an image"):
        check_images([sample], skip=False)
