"""Items are repeatable: from any number of workers, from a cache or from the files."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from experiments.data.augment import Augmentation, training_transform
from experiments.data.dataset import DataError, Sample
from experiments.data.grocery_store import load_grocery_store
from experiments.data.torch_dataset import PhotoDataset
from lca_fused.photos.reading import ImageError
from lca_fused.preprocessing import Preprocessing

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
SIZES = [(60, 40), (40, 60), (48, 48), (20, 24)]  # (width, height)


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    for label, (width, height) in enumerate(SIZES):
        path = tmp_path / f"{label}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        made.append(Sample(path, label))
    return made


def augmented(samples: list[Sample], **options) -> PhotoDataset:
    strength = Augmentation(blur=0.5, erase=0.5)
    return PhotoDataset(
        samples,
        training_transform(Preprocessing(image_size=16, mean=MEAN, std=STD), strength),
        **options,
    )


def raw(samples: list[Sample], **options) -> PhotoDataset:
    return PhotoDataset(samples, v2.Identity(), **options)


def images(dataset: PhotoDataset) -> Tensor:
    return torch.stack([image for image, _ in dataset])


def epochs(dataset: PhotoDataset, **options) -> list[Tensor]:
    """Return the images of epochs 0 and 1, from one loader."""
    loader = DataLoader(dataset, batch_size=3, **options)
    found = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        found.append(torch.cat([batch for batch, _ in loader]))
    return found


def test_a_photo_comes_as_uint8_channels_first(samples):
    for (width, height), sample, (image, label) in zip(SIZES, samples, raw(samples), strict=True):
        assert image.dtype == torch.uint8
        assert image.shape == (3, height, width)
        assert type(image) is Tensor
        assert (image.permute(1, 2, 0).numpy() == np.asarray(Image.open(sample.path))).all()
        assert label == sample.label


@pytest.mark.parametrize("options", [{}, {"cache_side": 32}, {"cache_side": 32, "cache_bytes": 0}])
def test_repeats_lengthen_the_epoch(samples, options):
    dataset = augmented(samples, repeats=3, **options)
    assert len(dataset) == 12
    assert [label for _, label in dataset] == [0, 1, 2, 3] * 3
    assert not torch.equal(dataset[0][0], dataset[4][0])
    with pytest.raises(IndexError):
        dataset[12]


@pytest.mark.parametrize("workers", [0, 2])
def test_items_do_not_depend_on_the_workers(samples, workers):
    expected = augmented(samples, repeats=2, cache_side=32)
    first = images(expected)
    expected.set_epoch(1)
    second = images(expected)
    assert not torch.equal(first, second)
    dataset = augmented(samples, repeats=2, cache_side=32)
    found = epochs(dataset, num_workers=workers, persistent_workers=workers > 0)
    assert torch.equal(found[0], first)
    assert torch.equal(found[1], second)


@pytest.mark.slow
def test_spawned_workers_share_cache_and_epoch(samples):
    dataset = augmented(samples, cache_side=32)
    context = multiprocessing.get_context("spawn")
    found = epochs(dataset, num_workers=1, persistent_workers=True, multiprocessing_context=context)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        assert torch.equal(found[epoch], images(dataset))


def test_an_epoch_can_be_drawn_without_those_before(samples):
    dataset, resumed = augmented(samples), augmented(samples)
    for epoch in range(4):
        dataset.set_epoch(epoch)
        last = images(dataset)
    resumed.set_epoch(3)
    assert resumed.epoch == 3
    assert torch.equal(images(resumed), last)


def test_the_seed_decides(samples):
    drawn = [images(augmented(samples, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_callers_random_numbers_are_left_alone(samples, monkeypatch):
    def reseeded(seed: int) -> None:
        raise AssertionError("the GPU's generators were reseeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded)
    torch.default_generator.manual_seed(7)
    expected = torch.rand(5)
    torch.default_generator.manual_seed(7)
    augmented(samples)[0]
    assert torch.equal(torch.rand(5), expected)


def test_the_cache_changes_no_item(samples):
    cached = augmented(samples, cache_side=32)
    read = augmented(samples, cache_side=32, cache_bytes=0)
    assert cached.cached
    assert not read.cached
    assert torch.equal(images(cached), images(read))


def test_cached_photos_are_shrunk_to_the_shorter_side(samples):
    shapes = [tuple(image.shape) for image, _ in raw(samples, cache_side=32)]
    assert shapes == [(3, 32, 48), (3, 48, 32), (3, 32, 32), (3, 24, 20)]


def test_shrinking_does_not_alias(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    image, _ = raw([Sample(tmp_path / "stripes.png", 0)], cache_side=16)[0]
    inside = image[:, 1:-1, 1:-1].float()
    assert (inside - 127.5).abs().max() < 12


def test_rotated_photos_fit_the_cache(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.png", "turned.tif"):
        Image.new("RGB", (60, 40), (9, 8, 7)).save(tmp_path / name, exif=exif)
    dataset = raw(
        [Sample(tmp_path / name, 0) for name in ("turned.png", "turned.tif")], cache_side=20
    )
    assert [tuple(image.shape) for image, _ in dataset] == [(3, 30, 20)] * 2


def test_photos_are_decoded_once(samples):
    dataset = raw(samples, cache_side=32)
    for sample in samples:
        sample.path.unlink()
    assert [label for _, label in dataset] == [0, 1, 2, 3]


def test_a_transform_cannot_write_into_the_cache(samples):
    dataset = PhotoDataset(samples, lambda image: image.zero_(), cache_side=32)
    dataset[0]
    dataset.transform = v2.Identity()
    assert dataset[0][0].any()


def test_a_cache_beyond_its_budget_is_skipped_and_said(samples, caplog):
    needed = 3 * (32 * 48 + 48 * 32 + 32 * 32 + 24 * 20)
    assert raw(samples, cache_side=32, cache_bytes=needed).cached
    assert not caplog.records
    assert not raw(samples, cache_side=32, cache_bytes=needed - 1).cached
    assert "4 photos take" in caplog.text


def test_a_copy_in_another_process_keeps_its_items(samples):
    dataset = augmented(samples, cache_side=32)
    dataset.set_epoch(2)
    assert torch.equal(images(pickle.loads(pickle.dumps(dataset))), images(dataset))


@pytest.mark.parametrize("options", [{}, {"cache_side": 32}])
def test_an_unreadable_photo_is_named(tmp_path, options):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg: zero bytes"):
        raw([Sample(tmp_path / "empty.jpg", 0)], **options)[0]


def test_an_unreadable_photo_is_named_from_a_worker(tmp_path):
    (tmp_path / "empty.jpg").touch()
    loader = DataLoader(raw([Sample(tmp_path / "empty.jpg", 0)]), num_workers=1)
    with pytest.raises(ImageError, match=r"empty\.jpg: zero bytes"):
        next(iter(loader))


@pytest.mark.parametrize("options", [{"repeats": 0}, {"seed": -1}, {"cache_side": 0}])
def test_arguments_out_of_range(options):
    (name,) = options
    with pytest.raises(DataError, match=rf"{name} is .*expected"):
        raw([Sample(Path("a.jpg"), 0)], **options)


def test_no_samples():
    with pytest.raises(DataError, match="no photos"):
        raw([])


@pytest.mark.data
def test_real_photos_make_batches(data_root):
    test = load_grocery_store(data_root, "many-shot").test[:64]
    dataset = PhotoDataset(test, Preprocessing().transform(), cache_side=256)
    batch, labels = next(iter(DataLoader(dataset, batch_size=64)))
    assert batch.shape == (64, 3, 224, 224)
    assert batch.isfinite().all()
    assert labels.tolist() == [sample.label for sample in test]
