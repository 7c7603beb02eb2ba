"""A photo that cannot be read is named, with what is wrong and what to do."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data.dataset import DataError, Sample
from experiments.data.images import check_images
from lca_fused.photos.formats import readable_suffixes
from lca_fused.photos.reading import ImageError, read_image


def noise(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def text(path: Path) -> Path:
    path.write_text("<html>404</html>")
    return path


def floats(path: Path) -> Path:
    Image.fromarray(np.full((4, 4), 40, np.float32)).save(path)
    return path


def pipe(path: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(path)
    return path


def heic(path: Path) -> Path:
    path.write_bytes(b"\0\0\0\x18ftypheic")
    return path


def made(path: Path, how: str) -> Path:
    getattr(path, how)()
    return path


BAD = {
    "empty.jpg": (lambda path: made(path, "touch"), "zero bytes"),
    "text.jpg": (text, "not an image"),
    "cut.jpg": (lambda path: cut(noise(path)), "truncated"),
    "cut.png": (lambda path: cut(noise(path)), "truncated"),
    "cut.webp": (lambda path: cut(noise(path)), "truncated"),
    "folder.jpg": (lambda path: made(path, "mkdir"), "a directory"),
    "missing.jpg": (lambda path: path, "no such file"),
    "heic.jpg": (heic, "not an image, or of a format that is not read (to read it: pip install"),
    "pipe.jpg": (pipe, "not a file: a pipe"),
    "floats.tif": (floats, 'colour mode "F"'),
}


@pytest.fixture(params=BAD)
def bad(tmp_path, request) -> tuple[Path, str]:
    """A file that cannot be read, and how what is wrong with it starts."""
    if request.param == "heic.jpg" and ".heic" in readable_suffixes():
        pytest.skip("HEIC is read here")
    make, reason = BAD[request.param]
    return make(tmp_path / request.param), reason


def test_the_error_names_file_and_reason(bad):
    path, reason = bad
    with pytest.raises(ImageError) as raised:
        read_image(path)
    assert str(raised.value).startswith(f"{path}: {reason}")
    assert str(raised.value) == f"{path}: {raised.value.reason}"


def test_a_data_set_with_such_a_file_names_it_and_the_remedy(bad):
    path, reason = bad
    with pytest.raises(DataError) as raised:
        check_images([Sample(path, 0)], skip=False)
    message = str(raised.value)
    assert f"  {path}: {reason}" in message
    assert "--skip-bad-images" in message
    assert "Remove" in message


def test_too_large_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = noise(tmp_path / "huge.png")
    with pytest.raises(ImageError, match=r"huge\.png: too large .*4096 pixels.*scale it down"):
        read_image(path)


def test_no_permission_is_not_called_damage(tmp_path, monkeypatch):
    path = noise(tmp_path / "a.png")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ImageError, match="no permission"):
        read_image(path)


def test_running_out_of_memory_is_not_the_photos_fault(tmp_path, monkeypatch):
    def exhaust(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", exhaust)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.png")


def test_the_error_survives_the_way_back_from_a_worker():
    error = ImageError("a.jpg: zero bytes. Remove it", "zero bytes")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.reason) == (str(error), error.reason)
    assert str(ImageError(str(error))) == str(error)


@pytest.fixture
def mixed(tmp_path) -> list[Sample]:
    good = [noise(tmp_path / f"good{index}.png") for index in range(3)]
    bad = [made(tmp_path / f"bad{index:02}.jpg", "touch") for index in range(22)]
    return [Sample(path, label) for label, path in enumerate(good[:1] + bad + good[1:])]


def test_without_skip_all_bad_photos_are_in_one_error(mixed):
    with pytest.raises(DataError) as raised:
        check_images(mixed, skip=False)
    message = str(raised.value)
    assert message.startswith("22 of 25 photos cannot be read:")
    assert message.count(": zero bytes") == 20
    assert "bad19.jpg" in message
    assert "bad20.jpg" not in message
    assert "... and 2 more" in message
    assert "--skip-bad-images" in message


def test_with_skip_the_good_ones_keep_their_order(mixed):
    good, bad = check_images(mixed, skip=True, workers=3)
    assert [sample.label for sample in good] == [0, 23, 24]
    assert [problem.path.name for problem in bad] == [f"bad{index:02}.jpg" for index in range(22)]
    assert all(problem.reason.startswith("zero bytes") for problem in bad)


def test_good_photos_pass(tmp_path):
    samples = [Sample(noise(tmp_path / "a.png"), 0)] * 2
    assert check_images(samples, skip=False) == (samples, [])
