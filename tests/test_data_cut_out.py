"""Training photos are cut out where something tells the product from its ground, and only there."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from experiments.data.catalog import load_dataset
from experiments.data.cut_out import cut_out
from experiments.data.dataset import DataError, Ground, ProductDataset, Sample, cutting_digest
from experiments.data.folder import load_folder
from experiments.data.grocery_store import load_grocery_store
from experiments.data.images import read_cutout
from experiments.data.source import DataOptions

HEIGHT, WIDTH = 80, 60
GREEN = (30, 130, 70)
TOP, BOTTOM, LEFT, RIGHT = 20, 65, 15, 45


def packshot(ground: int = 250) -> NDArray[np.uint8]:
    """Return a green box with a white label, the whites as white as the ground."""
    pixels = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    pixels[TOP:BOTTOM, LEFT:RIGHT] = GREEN
    pixels[TOP + 10 : BOTTOM - 10, LEFT + 8 : RIGHT - 8] = ground
    return pixels


def at_the_border() -> NDArray[np.uint8]:
    """Return a box as high as the photo: it parts the ground in two."""
    pixels = packshot()
    pixels[:, LEFT:RIGHT] = GREEN
    return pixels


def on_a_gradient() -> NDArray[np.uint8]:
    pixels = packshot()
    shade = np.linspace(180, 255, HEIGHT).astype(np.uint8)[:, None, None]
    return np.where(pixels == 250, shade, pixels)


def with_a_dark_corner() -> NDArray[np.uint8]:
    pixels = packshot()
    pixels[:15, :15] = 238
    return pixels


def in_the_store() -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    pixels[TOP:BOTTOM, LEFT:RIGHT] = GREEN
    return pixels


def white_on_white() -> NDArray[np.uint8]:
    """Return what a white product shows of itself on white: scattered print."""
    pixels = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
    for row, column in ((12, 10), (14, 44), (60, 12), (62, 42)):
        pixels[row : row + 8, column : column + 8] = GREEN
    return pixels


def in_full() -> NDArray[np.uint8]:
    """Return a product that leaves only a line of its ground."""
    pixels = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
    pixels[1:-1, 1:-1] = GREEN
    return pixels


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def dataset(*paths: Path) -> ProductDataset:
    photos = tuple(Sample(path, 0) for path in paths)
    return ProductDataset("shop", ("cola",), photos, photos, photos)


@pytest.mark.parametrize(
    ("photo", "plain"),
    [
        (packshot, True),
        (at_the_border, True),
        (lambda: packshot(ground=0), True),
        (on_a_gradient, False),
        (with_a_dark_corner, False),
        (in_the_store, False),
        (white_on_white, False),
        (in_full, False),
        (lambda: np.full((HEIGHT, WIDTH, 3), 250, np.uint8), False),
        (lambda: np.full((1, 1, 3), 250, np.uint8), False),
    ],
)
def test_auto_cuts_out_what_stands_on_a_plain_ground(tmp_path, photo, plain):
    path = save(tmp_path / "photo.png", photo())
    found = cut_out(dataset(path), "auto")
    assert found.train == (Sample(path, 0, Ground.FILLED if plain else None),)
    assert found.validation == found.test == (Sample(path, 0),), "seen as they are"


def test_a_packshot_keeps_what_its_product_encloses_and_loses_specks(tmp_path):
    pixels = packshot()
    pixels[4:7, 50:52] = 200  # dust
    cutout = np.asarray(read_cutout(save(tmp_path / "photo.png", pixels), Ground.FILLED))
    assert cutout.shape == (BOTTOM - TOP, RIGHT - LEFT, 4)
    assert (cutout[..., 3] == 255).all(), "the white label too"


def test_the_ground_of_a_large_noisy_photo_is_found(tmp_path):
    large = cv2.resize(packshot(240), (1200, 1600), interpolation=cv2.INTER_NEAREST)
    noisy = large + np.random.default_rng(0).normal(0, 4, large.shape)
    path = save(tmp_path / "photo.png", noisy.clip(0, 255).astype(np.uint8))
    assert cut_out(dataset(path), "auto").train[0].mask is Ground.FILLED
    width, height = read_cutout(path, Ground.FILLED).size
    assert abs(width - 20 * (RIGHT - LEFT)) < 10
    assert abs(height - 20 * (BOTTOM - TOP)) < 10


def transparent(path: Path, *, around: int = 0) -> Path:
    alpha = np.full((HEIGHT, WIDTH, 1), around, np.uint8)
    alpha[TOP:BOTTOM, LEFT:RIGHT] = 255
    return save(path, np.concatenate([in_the_store(), alpha], axis=2))


def mask_of(path: Path) -> Path:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[TOP:BOTTOM, LEFT:RIGHT] = 255
    return save(path.with_name(path.stem + ".mask.png"), mask)


def test_transparency_and_masks_tell_the_product_on_any_ground(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    alone, masked = transparent(tmp_path / "alone.png"), transparent(tmp_path / "masked.png")
    opaque = transparent(tmp_path / "opaque.png", around=255)
    invisible = save(tmp_path / "invisible.png", np.zeros((HEIGHT, WIDTH, 4), np.uint8))
    mask = mask_of(masked)
    given = dataset(alone, masked, opaque, invisible)
    found = cut_out(given, "auto")
    assert [sample.mask for sample in found.train] == [alone, mask, None, None]
    for sample in found.train[:2]:
        assert read_cutout(sample.path, sample.mask).size == (RIGHT - LEFT, BOTTOM - TOP)
    said = "2 of 4 training photos are cut out and laid on fresh grounds: 1 by their transparency, "
    assert said + "1 by a mask" in caplog.text
    assert found.notes[0].startswith(said)
    assert len({cutting_digest(data) for data in (given, found, dataset(alone, masked))}) == 3


def test_never_takes_photos_as_they_are_whatever_the_data_set_says(tmp_path):
    path = transparent(tmp_path / "photo.png")
    given = ProductDataset("shop", ("cola",), (Sample(path, 0, path),), (), ())
    assert cut_out(given, "auto").train == given.train
    assert cut_out(given, "never").train == (Sample(path, 0),)


def test_always_cuts_any_ground_and_names_photos_of_which_nothing_is_left(tmp_path):
    store, gradient = (
        save(tmp_path / "a.png", in_the_store()),
        save(tmp_path / "b.png", on_a_gradient()),
    )
    found = cut_out(dataset(store, gradient), "always")
    assert [sample.mask for sample in found.train] == [Ground.FILLED] * 2
    empty = save(tmp_path / "empty.png", np.full((HEIGHT, WIDTH, 3), 250, np.uint8))
    with pytest.raises(
        DataError, match=r"nothing is left of 1 of 2 .*empty\.png; give each a mask"
    ):
        cut_out(dataset(store, empty), "always")


def test_masks_beside_photos_are_no_photos(tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        mask_of(save(tmp_path / name / "photo.jpg", in_the_store()))
    mask_of(tmp_path / "train" / "a" / "lost.jpg")
    data = load_folder(tmp_path)
    assert [sample.path.name for sample in (*data.train, *data.test)] == ["photo.jpg"] * 4
    (note,) = data.notes
    assert "1 masks, NAME.mask.png, of photos that are not there, left out: " in note
    assert note.endswith("lost.mask.png")


def test_a_mask_of_another_size_is_named_before_training(tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        save(tmp_path / name / "photo.jpg", in_the_store())
    save(tmp_path / "train" / "a" / "photo.mask.png", np.zeros((3, 3), np.uint8))
    options = {"root": tmp_path, "cache": tmp_path, "image_size": 32}
    with pytest.raises(DataError, match=r"photo\.mask\.png is 3 x 3 pixels"):
        load_dataset("folder", DataOptions(**options))
    load_dataset("folder", DataOptions(**options, cut_out="never"))


@pytest.mark.data
def test_packshots_are_cut_out_and_photos_from_the_store_are_not(data_root):
    masks = {
        protocol: {s.mask for s in cut_out(load_grocery_store(data_root, protocol), "auto").train}
        for protocol in ("one-shot", "many-shot")
    }
    assert masks == {"one-shot": {Ground.FILLED}, "many-shot": {None}}
