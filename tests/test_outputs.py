"""Outputs that cannot be written are found before anything is computed."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from experiments.outputs import OutputError, check_file, check_folder, check_space
from experiments.storage import save_text

NO_ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)


def everything(folder):
    return sorted(folder.rglob("*"))


def test_what_can_be_written_leaves_no_trace(tmp_path):
    (tmp_path / "report.html").write_text("earlier")
    check_folder(tmp_path, "--output")
    check_folder(tmp_path / "a" / "b", "--output")
    check_file(tmp_path / "report.html", "--output")
    check_file(tmp_path / "a" / "page.html", "--output")
    assert everything(tmp_path) == [tmp_path / "report.html"]
    assert (tmp_path / "report.html").read_text() == "earlier"


@pytest.mark.parametrize("below", ["", "runs", "runs/mine"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"--output .*file is a file; name another place"):
        check_folder(tmp_path / "file" / below, "--output")
    with pytest.raises(OutputError, match="file is a file"):
        check_file(tmp_path / "file" / below / "page.html", "--output")


def test_a_folder_in_the_way_of_a_file_is_named(tmp_path):
    with pytest.raises(OutputError, match="is a folder; expected a file"):
        check_file(tmp_path, "--output")


@NO_ROOT
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(OutputError, match="Permission denied"):
            check_folder(folder, "--output")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux")
def test_a_file_system_that_takes_no_files_is_named():
    with pytest.raises(OutputError, match="--output /proc/nothing/here cannot be written"):
        check_folder(Path("/proc/nothing/here"), "--output")


def test_a_name_that_is_too_long_is_found(tmp_path):
    with pytest.raises(OutputError, match="too long"):
        check_file(tmp_path / ("a" * 300), "--output")
    assert not everything(tmp_path)


def test_a_full_disk_is_found(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 2**40, 2**30))
    check_space(tmp_path / "not" / "there", 2**30, "checkpoints")
    with pytest.raises(OutputError, match=r"1\.00 GiB free, and checkpoints may take 3\.00 GiB"):
        check_space(tmp_path / "not" / "there", 3 * 2**30, "checkpoints")


def test_a_file_whose_name_is_as_long_as_it_can_be_is_written_whole(tmp_path):
    file = tmp_path / ("a" * 255)
    save_text("caf\udce9", file)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text(encoding="utf-8") == "caf\\udce9"
