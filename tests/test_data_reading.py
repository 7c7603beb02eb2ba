"""Photos of every kind come out as the same upright 8-bit RGB."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data.dataset import Sample
from experiments.data.images import check_images
from lca_fused.photos.reading import image_size, read_image, read_rgba

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


# 12 bits in 16


def test_a_jpeg_can_be_decoded_to_part_of_its_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (400, 200), (9, 8, 7)).save(path, exif=exif)
    assert read_rgba(path).size == (200, 400)
    assert read_rgba(path, at_least=60).size == (100, 200)
    assert read_rgba(path, at_least=900).size == (200, 400)


def twelve_bits(*shape: int) -> np.ndarray:
    return np.linspace(0, 4095, int(np.prod(shape))).astype(np.uint16).reshape(shape)


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_12_bit_grey_is_not_black(tmp_path, extension):
    ramp = twelve_bits(16, 16)
    read = pixels(save(tmp_path / f"ramp.{extension}", ramp))
    assert (read == (ramp >> 4)[..., None]).all()


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_12_bit_colour_is_not_black(tmp_path, extension, channels):
    cv2 = pytest.importorskip("cv2")
    colours = twelve_bits(8, 12, channels)
    if channels == 4:
        colours[..., 3] = 65535  # opaque
    cv2.imwrite(str(tmp_path / f"a.{extension}"), colours)
    assert (pixels(tmp_path / f"a.{extension}") == (colours >> 4)[..., 2::-1]).all()


def test_16_bit_colour_keeps_its_high_byte(tmp_path):
    cv2 = pytest.importorskip("cv2")
    colours = twelve_bits(8, 12, 3) * 16
    cv2.imwrite(str(tmp_path / "a.png"), colours)
    assert (pixels(tmp_path / "a.png") == (colours >> 8)[..., ::-1]).all()


def add_exif(source: Path, path: Path, exif: Image.Exif) -> None:
    """Copy a PNG and put an eXIf chunk behind its header, of 33 bytes."""
    png, body = source.read_bytes(), exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + body
    framed = struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(png[:33] + framed + png[33:])


def test_12_bit_colour_is_turned_as_exif_says(tmp_path):
    cv2 = pytest.importorskip("cv2")
    colours = twelve_bits(8, 12, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    cv2.imwrite(str(tmp_path / "plain.png"), colours)
    add_exif(tmp_path / "plain.png", tmp_path / "a.png", exif)
    turned = np.rot90((colours >> 4)[..., ::-1], -1)
    assert (pixels(tmp_path / "a.png") == turned).all()


# Float pixels, frames, strips


def test_floats_from_0_to_1_are_scaled(tmp_path):
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    read = pixels(save(tmp_path / "ramp.tif", ramp))
    assert (read == np.arange(256).reshape(16, 16, 1)).all()


@pytest.mark.parametrize("extension", ["gif", "webp", "png", "tif"])
def test_of_several_frames_the_first_is_read(tmp_path, extension, caplog):
    caplog.set_level("INFO")
    first, second = (Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE))
    path = tmp_path / f"a.{extension}"
    lossless = {"lossless": True} if extension == "webp" else {}
    first.save(path, save_all=True, append_images=[second], **lossless)
    assert (pixels(path) == RED).all()
    check_images([Sample(path, 0)], skip=False)
    assert "1 photos have several frames or pages: the first is read" in caplog.text


def test_12_bits_are_told_when_photos_are_checked(tmp_path, caplog):
    caplog.set_level("INFO")
    samples = [Sample(save(tmp_path / f"{k}.png", twelve_bits(8, 8)), 0) for k in range(2)]
    check_images(samples, skip=False)
    assert "2 photos have 12-bit values in 16 bits" in caplog.text


@pytest.mark.parametrize("size", [(1, 5000), (20000, 10), (1, 51)])
def test_strips_are_refused_when_photos_are_checked(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "strip.png")
    _, (bad,) = check_images([Sample(tmp_path / "strip.png", 0)], skip=True)
    assert bad.reason.startswith(f"too narrow: {size[0]} x {size[1]} pixels")


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2)])
def test_small_photos_are_read(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "small.png")
    assert read_image(tmp_path / "small.png").size == size
