"""The contact sheet shows photos as they are trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data.augment import Augmentation, training_transform
from experiments.data.contact_sheet import _chosen, save_contact_sheet
from experiments.data.dataset import Sample
from experiments.data.torch_dataset import PhotoDataset
from lca_fused.preprocessing import Preprocessing

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZE, GAP = 16, 2


@pytest.fixture
def dataset(tmp_path) -> PhotoDataset:
    rng = np.random.default_rng(0)
    samples = []
    for label in range(5):
        path = tmp_path / f"{label}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(path, label))
    preprocessing = Preprocessing(image_size=SIZE, mean=MEAN, std=STD)
    transform = training_transform(preprocessing, Augmentation(blur=0.0))
    dataset = PhotoDataset(samples, transform, workers=1)
    dataset.set_epoch(7)
    return dataset


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = (GAP + k * (SIZE + GAP) for k in (row, column))
    return sheet[top : top + SIZE, left : left + SIZE]


def test_rows_are_photos_and_columns_are_draws(dataset, tmp_path):
    save_contact_sheet(dataset, tmp_path / "new" / "sheet.png", 2, 3, MEAN, STD)
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    assert sheet.shape == (2 * (SIZE + GAP) + GAP, 3 * (SIZE + GAP) + GAP, 3)
    assert dataset.epoch == 7, "as it was"
    for row, photo in enumerate((0, 2)):
        for epoch in range(3):
            dataset.set_epoch(epoch)
            colours = dataset[photo][0] * torch.tensor(STD)[:, None, None]
            colours += torch.tensor(MEAN)[:, None, None]
            expected = 255 * colours.permute(1, 2, 0).numpy()
            assert np.abs(tile(sheet, row, epoch) - expected).max() <= 1
    assert not np.array_equal(tile(sheet, 0, 0), tile(sheet, 0, 1))


def test_fewer_photos_than_rows_give_fewer_rows(dataset, tmp_path):
    save_contact_sheet(dataset, tmp_path / "sheet.png", 9, 1, MEAN, STD)
    assert Image.open(tmp_path / "sheet.png").height == 5 * (SIZE + GAP) + GAP


def test_cutouts_are_half_of_what_is_shown_where_there_are_so_many(dataset):
    plain = dataset.samples[0]
    cut = replace(plain, mask=plain.path)
    assert _chosen([plain] * 8 + [cut] * 4, 4) == [8, 10, 0, 4]
    assert _chosen([plain] * 8 + [cut], 4) == [8, 0, 2, 5]
    assert _chosen([plain] + [cut] * 8, 4) == [1, 3, 6, 0]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_there_is_something_to_draw(dataset, tmp_path, shape):
    with pytest.raises(ValueError, match=r"rows is \d and columns is \d; expected at least 1"):
        save_contact_sheet(dataset, tmp_path / "sheet.png", *shape, MEAN, STD)
