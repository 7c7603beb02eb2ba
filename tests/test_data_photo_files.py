"""What is a photo below a folder and what is not; nothing is left out without being counted."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import types
from pathlib import Path

import pytest
from PIL import Image

from experiments.data.left_out import LeftOut, Why, describe
from experiments.data.own_output import MARKER, PICTURE_METADATA, is_own_picture, mark_output
from experiments.data.photo_files import PhotoFiles, find_photos
from lca_fused.photos import formats


def photo(path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, **options)
    return path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(found: PhotoFiles, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found.photos]


def reasons(found: PhotoFiles) -> dict[str, Why]:
    return {item.path.name: item.why for item in found.left_out}


def test_photos_are_found_at_any_depth_in_any_case_and_sorted(tmp_path):
    wanted = ["B.JPG", "a.jpeg", "b.jfif", "d.webp", "deep/er/c.Png", "e.bmp", "f.TIF", "g.gif"]
    for name in [*wanted, "notes.txt", "labels.json"]:
        touch(tmp_path / name)
    found = find_photos(tmp_path)
    assert names(found, tmp_path) == wanted
    assert reasons(found) == {"notes.txt": Why.OTHER, "labels.json": Why.OTHER}


SYSTEM = [
    "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/1.jpg",
    ".@__thumb/s1001.jpg",
    "@Recently-Snapshot/GMT/1.jpg",
    "#snapshot/1.jpg",
    "lost+found/1.jpg",
    "$RECYCLE.BIN/S-1-5/1.jpg",
    "System Volume Information/1.jpg",
    ".Trash-1000/files/1.jpg",
    ".thumbnails/1.png",
    "__MACOSX/._1.jpg",
    "thumbs/1.jpg",
    "Catalog Previews.lrdata/1.jpg",
    "Thumbs.db",
    ".DS_Store",
    "._1.jpg",
    "SYNOPHOTO_THUMB_XL.jpg",
    "1.jpg_original",
    "1.THM",
]


@pytest.mark.parametrize("name", SYSTEM)
def test_system_and_derived_files_are_counted_and_not_read(tmp_path, name):
    touch(photo(tmp_path / "1.jpg").parent / name)
    found = find_photos(tmp_path)
    assert names(found, tmp_path) == ["1.jpg"]
    (line,) = describe(found.left_out, tmp_path)
    assert line.startswith("1 hidden, system, thumbnail or backup")
    assert name.split("/")[0] in line


def test_the_folder_that_is_asked_for_may_have_any_name(tmp_path):
    photo(tmp_path / ".cache" / "thumbs" / "1.jpg")
    assert len(find_photos(tmp_path / ".cache" / "thumbs").photos) == 1


def test_formats_that_are_not_read_are_named_and_counted_with_what_to_do(tmp_path, without_heic):
    for name in ["1.HEIC", "2.heic", "3.CR2", "4.jxl", "5.xyz"]:
        touch(tmp_path / name)
    (formats_line, other) = describe(find_photos(tmp_path).left_out, tmp_path)
    assert formats_line.startswith("4 photos of a format that is not read, left out: ")
    assert "2 HEIC (to read it: pip install pi-heif" in formats_line
    assert "1 CR2 (camera raw" in formats_line
    assert "1 JXL (save as" in formats_line
    assert other == "1 files that are no photos, left out: 1 XYZ"


@pytest.mark.parametrize("package", ["pillow_heif", "pi_heif"])
def test_heic_is_read_where_a_package_for_it_is_installed(tmp_path, monkeypatch, package):
    def register_heif_opener() -> None:
        monkeypatch.setitem(Image.EXTENSION, ".heic", "PNG")

    for name in ("pillow_heif", "pi_heif"):
        module = types.SimpleNamespace(register_heif_opener=register_heif_opener)
        monkeypatch.setitem(sys.modules, name, module if name == package else None)
    formats.readable_suffixes.cache_clear()
    try:
        assert names(find_photos(touch(tmp_path / "1.HEIC").parent), tmp_path) == ["1.HEIC"]
    finally:
        formats.readable_suffixes.cache_clear()


@pytest.fixture
def without_heic(monkeypatch):
    """As where no package reads HEIC."""
    extensions = {s: f for s, f in Image.EXTENSION.items() if f != "HEIF"}
    monkeypatch.setattr(Image, "EXTENSION", extensions)
    monkeypatch.setattr(formats, "_register_heif", lambda: None)
    formats.readable_suffixes.cache_clear()
    yield
    formats.readable_suffixes.cache_clear()


def test_content_decides_where_the_name_does_not_say(tmp_path, without_heic):
    for name, file_format in {"scan": "PNG", "cola 0.5l": "JPEG", "img.jpg_large": "WEBP"}.items():
        photo(tmp_path / name, format=file_format)
    (tmp_path / "README").write_text("no photo")
    (tmp_path / "IMG_1").write_bytes(b"\0\0\0\x18ftypheic")
    found = find_photos(tmp_path)
    assert names(found, tmp_path) == ["cola 0.5l", "img.jpg_large", "scan"]
    assert reasons(found) == {"README": Why.OTHER, "IMG_1": Why.FORMAT}


# Links and things that are not files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_sockets_and_broken_links_are_named_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked.png").symlink_to(tmp_path / "pipe.jpg")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{short}/s.jpg")  # a socket's path must be short
        (tmp_path / "socket.jpg").symlink_to(f"{short}/s.jpg")
        found = find_photos(tmp_path)
    assert not found.photos
    assert reasons(found) == {
        "pipe.jpg": Why.NOT_A_FILE,
        "pipe": Why.NOT_A_FILE,
        "linked.png": Why.NOT_A_FILE,
        "socket.jpg": Why.NOT_A_FILE,
        "gone.jpg": Why.BROKEN_LINK,
    }
    assert "pipe.jpg" in describe(found.left_out, tmp_path)[1]


def test_linked_folders_and_files_are_read_once(tmp_path):
    photo(tmp_path / "elsewhere" / "1.jpg")
    root = photo(tmp_path / "root" / "apple" / "2.jpg").parents[1]
    (root / "apple" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "apple" / "again").symlink_to(tmp_path / "elsewhere")
    (root / "apple" / "3.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    found = find_photos(root / "apple")
    assert names(found, root) == ["apple/2.jpg", "apple/3.jpg", "apple/again/1.jpg"]
    assert reasons(found) == {"more": Why.LINK}


def test_links_that_lead_in_circles_end(tmp_path):
    photo(tmp_path / "a" / "1.jpg")
    photo(tmp_path / "b" / "2.jpg")
    (tmp_path / "a" / "to-b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to-a").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    found = find_photos(tmp_path / "a")
    assert names(found, tmp_path) == ["a/1.jpg", "a/to-b/2.jpg"]
    assert reasons(found) == {"up": Why.LINK, "to-a": Why.LINK}


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    locked = photo(tmp_path / "locked" / "1.jpg").parent
    iterdir = Path.iterdir

    def refuse(path: Path):
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)  # an administrator may read anything
    found = find_photos(tmp_path)
    assert found.left_out == (LeftOut(locked, Why.UNREADABLE, "permission denied"),)
    assert found.left_out[0].expected_photo
    assert "1 folders that cannot be read" in describe(found.left_out, tmp_path)[0]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="may read anything")
def test_a_folder_without_permission_is_named(tmp_path):
    locked = photo(tmp_path / "locked" / "1.jpg").parent
    locked.chmod(0)
    try:
        assert reasons(find_photos(tmp_path)) == {"locked": Why.UNREADABLE}
    finally:
        locked.chmod(0o700)


# Our own results


def test_a_folder_of_results_is_left_out(tmp_path):
    mark_output(tmp_path / "runs")
    photo(tmp_path / "runs" / "embedded" / "1.png")
    photo(tmp_path / "1.jpg")
    found = find_photos(tmp_path)
    assert names(found, tmp_path) == ["1.jpg"]
    assert reasons(found) == {"runs": Why.OUTPUT}


@pytest.mark.parametrize(
    "name", ["finetune.json", "cells/set/lca-seed0-0123abcd.model/config.json"]
)
def test_a_run_before_there_were_markers_is_known_by_its_files(tmp_path, name):
    touch(tmp_path / "runs" / name)
    assert reasons(find_photos(tmp_path)) == {"runs": Why.OUTPUT}


def test_a_folder_of_photos_that_also_gets_results_stays_one(tmp_path):
    photo(tmp_path / "shop" / "apple" / "1.jpg")
    mark_output(tmp_path / "shop")
    photo(tmp_path / "shop" / "cells" / "1.jpg")
    assert not (tmp_path / "shop" / MARKER).exists()
    assert names(find_photos(tmp_path), tmp_path) == ["shop/apple/1.jpg"]


def test_where_nothing_can_be_written_nothing_is_marked(tmp_path):
    touch(tmp_path / "file")
    mark_output(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_picture_of_ours_among_the_photos_is_left_out(tmp_path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.savefig(tmp_path / "1.jpg.png", metadata=PICTURE_METADATA)
    photo(tmp_path / "2.png")
    found = find_photos(tmp_path)
    assert names(found, tmp_path) == ["2.png"]
    assert reasons(found) == {"1.jpg.png": Why.OUTPUT}
    assert not is_own_picture(tmp_path / "gone.png")
