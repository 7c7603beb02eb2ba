"""Photos of every kind come out as the same upright 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data.images import find_images, image_size, read_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def save(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, extension):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    read = pixels(save(tmp_path / f"ramp.{extension}", ramp))
    assert np.abs(read.astype(int) - (ramp / 257)[..., None]).max() <= 1
    assert len(np.unique(read)) == 256


def test_big_endian_16_bit_tiff(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(">u2").reshape(16, 16)
    Image.frombytes("I;16B", (16, 16), ramp.tobytes()).save(tmp_path / "ramp.tif")
    read = pixels(tmp_path / "ramp.tif")
    assert np.abs(read.astype(int) - (ramp / 257)[..., None]).max() <= 1


def test_cmyk_keeps_its_colours(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    assert np.abs(pixels(tmp_path / "red.jpg").astype(int) - RED).max() <= 3


def test_grey_fills_all_channels(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (pixels(save(tmp_path / "grey.png", grey)) == grey[..., None]).all()


def test_one_bit_becomes_black_and_white(tmp_path):
    board = np.indices((8, 8)).sum(0) % 2 == 1
    read = pixels(save(tmp_path / "board.png", board))
    assert (read == board[..., None] * 255).all()


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 255
    rgba[0, :, 3] = 0, 128, 255
    read = pixels(save(tmp_path / "alpha.png", rgba))
    assert np.abs(read[0].astype(int) - [(255, 255, 255), (255, 127, 127), RED]).max() <= 1


def test_grey_with_transparency_is_laid_on_white(tmp_path):
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "alpha.png")
    assert (pixels(tmp_path / "alpha.png") == 255).all()


def test_palette_with_a_transparent_entry(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    image.save(tmp_path / "palette.png", transparency=0)
    assert pixels(tmp_path / "palette.png")[0].tolist() == [[255, 255, 255], list(GREEN)]


def test_rgb_with_a_transparent_colour(tmp_path):
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    image.save(tmp_path / "key.png", transparency=RED)
    assert pixels(tmp_path / "key.png")[0].tolist() == [[255, 255, 255], list(BLUE)]


# Where each orientation puts the stored top left pixel, as (row, column) of the upright photo.
CORNERS = {
    1: (0, 0),
    2: (0, -1),
    3: (-1, -1),
    4: (-1, 0),
    5: (0, 0),
    6: (0, -1),
    7: (-1, -1),
    8: (-1, 0),
}


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("orientation", CORNERS)
def test_exif_orientation_is_applied_once(tmp_path, orientation, extension):
    image = Image.new("RGB", (6, 4))
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{extension}"
    image.save(path, exif=exif)
    read = pixels(path)
    assert read.shape == ((4, 6, 3) if orientation <= 4 else (6, 4, 3))
    assert tuple(read[CORNERS[orientation]]) == RED
    assert sorted(image_size(path)) == [4, 6]


def test_find_images_takes_photos_only_and_sorts_them(tmp_path):
    wanted = ["B.JPG", "a.jpeg", "d.webp", "deep/er/c.Png", "e.bmp", "f.TIF", "g.tiff"]
    others = ["._a.jpeg", ".DS_Store", ".hidden.png", ".thumbs/x.jpg", "notes.txt", "jpg", "h.gif"]
    for name in wanted + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == wanted
