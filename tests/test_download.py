"""Files fetched over HTTP, from a server on this machine, and archives unpacked."""

from __future__ import annotations

import hashlib
import re
import socket
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import download
from experiments.data import grozi_download
from experiments.data.__main__ import main
from experiments.data.dataset import DataError
from experiments.data.grozi import load_grozi
from experiments.data.grozi_check import check_grozi
from experiments.data.grozi_download import download_grozi
from experiments.download import DownloadError, fetch
from tests.file_server import FileHandler, serving
from tests.grozi_tree import write_grozi

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def served(tmp_path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "photos.bin").write_bytes(CONTENT)
    return folder


@pytest.fixture
def address(served) -> Iterator[str]:
    with serving(served) as running:
        yield running


@pytest.fixture
def file(tmp_path) -> Path:
    """A file of before, which only the right one may replace."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photos.bin").write_bytes(b"mine")
    return tmp_path / "data" / "photos.bin"


def files_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def refused(url: str, file: Path, *digits: str) -> str:
    with pytest.raises(DownloadError) as raised:
        fetch(url, file, *digits)
    assert files_in(file.parent) == {"photos.bin": b"mine"}, "nothing is left behind"
    assert url in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("digits", ["", DIGEST.upper(), DIGEST[:8]])
def test_a_file_is_fetched_and_checked(address, file, digits):
    fetch(f"{address}/photos.bin", file, digits)
    assert files_in(file.parent) == {"photos.bin": CONTENT}


def test_another_file_is_refused(address, file):
    message = refused(f"{address}/photos.bin", file, "0" * 64)
    assert f"has the sha256 {DIGEST}; expected one that begins with 000" in message


def test_what_is_not_there_is_refused(address, file):
    assert "404" in refused(f"{address}/gone.bin", file)


def test_half_a_file_is_refused(address, file, monkeypatch):
    half = len(CONTENT) // 2
    monkeypatch.setattr(FileHandler, "copyfile", lambda _, file, to: to.write(file.read(half)))
    assert f"{half} bytes read" in refused(f"{address}/photos.bin", file)


def test_a_silent_server_is_given_up(file, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        port = silent.getsockname()[1]
        assert "timed out" in refused(f"http://127.0.0.1:{port}/photos.bin", file)
    assert "refused" in refused(f"http://127.0.0.1:{port}/photos.bin", file), "now it is gone"


def test_other_kinds_of_address_are_refused(served, file):
    assert "No connection adapters" in refused((served / "photos.bin").as_uri(), file)


# GroZi-120 from end to end


def zipped(path: Path, members: dict[str | zipfile.ZipInfo, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.fixture
def grozi(served, address, tmp_path, monkeypatch) -> Path:
    """Serve GroZi-120 in small, and return the folder that it is to be in."""
    tree = write_grozi(tmp_path / "tree")
    for part in ("inVitro", "inSitu"):
        members = {f"{part}/{name}": content for name, content in files_in(tree / part).items()}
        zipped(served / f"{part}.zip", members)
    monkeypatch.setattr(grozi_download, "_ARCHIVES", address)
    return tmp_path / "grozi-120"


def test_grozi_is_fetched_unpacked_and_read(grozi, served, tmp_path, capsys):
    assert main(["download", "grozi-120", "--data-root", str(tmp_path)]) == 1, "findings remain"
    assert "UPC_index.txt is missing" in capsys.readouterr().out
    for part in ("inVitro", "inSitu"):
        assert files_in(grozi / part) == files_in(tmp_path / "tree" / part)
        digest = hashlib.sha256((served / f"{part}.zip").read_bytes()).hexdigest()
        assert (grozi / f"{part}.zip.sha256").read_text() == f"{digest}  {part}.zip\n"
    assert load_grozi(tmp_path, "in-vitro").classes[0] == "product 1"
    assert check_grozi(tmp_path)[0].endswith("products are named by their numbers alone.")


def test_an_archive_that_is_there_is_unpacked_over_what_is_there(grozi, served, tmp_path):
    download_grozi(tmp_path)
    for archive in served.glob("*.zip"):
        archive.unlink()
    file = grozi / "inSitu" / "1" / "coordinates.txt"
    content = file.read_bytes()
    file.write_bytes(b"old")
    (grozi / "inSitu" / "1" / "mine.txt").write_bytes(b"mine")
    mode = stat.S_IMODE(grozi.stat().st_mode)
    download_grozi(tmp_path)
    assert file.read_bytes() == content
    assert (grozi / "inSitu" / "1" / "mine.txt").read_bytes() == b"mine"
    assert stat.S_IMODE(grozi.stat().st_mode) == mode


def test_another_archive_than_the_first_is_refused(grozi, served, tmp_path):
    download_grozi(tmp_path)
    (grozi / "inSitu.zip").unlink()
    (served / "inVitro.zip").replace(served / "inSitu.zip")
    with pytest.raises(DataError, match=r"expected one that begins.*or get inSitu\.zip from"):
        download_grozi(tmp_path)
    assert not (grozi / "inSitu.zip").exists()
    assert (grozi / "inSitu" / "1" / "coordinates.txt").exists()


def test_members_stay_in_the_folder_and_links_lead_nowhere(grozi, served, tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    names = [f"{tmp_path}/evil", "../evil", "a/../../../evil", "C:/evil", "..\\evil"]
    zipped(served / "inVitro.zip", dict.fromkeys(names, b"evil") | {link: b"../.."})
    before = files_in(tmp_path)
    download_grozi(tmp_path)
    new = set(files_in(tmp_path)) - set(before)
    assert {name.partition("/")[0] for name in new} == {"grozi-120"}
    assert "grozi-120/evil" in new
    assert not (grozi / "link").is_symlink()


def truncated(content: bytearray) -> bytearray:
    return content[:-100]


def a_page(_: bytearray) -> bytes:
    return b"<html>log in first</html>"


def changed(content: bytearray) -> bytearray:
    content[len(content) // 2] ^= 1
    return content


def encrypted(content: bytearray) -> bytearray:
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of the last member
    return content


def deflate64(content: bytearray) -> bytearray:
    """As Windows writes large files, of the last member."""
    content[content.rindex(b"PK\x03\x04") + 8] = content[content.rindex(b"PK\x01\x02") + 10] = 9
    return content


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncated, "not a zip file"),
        (a_page, "not a zip file"),
        (changed, "CRC"),
        (encrypted, "encrypted"),
        (deflate64, "compression"),
    ],
)
def test_an_archive_that_cannot_be_unpacked_changes_nothing(grozi, served, tmp_path, spoil, reason):
    archive = served / "inVitro.zip"
    zipped(archive, {"inVitro/1.bin": CONTENT, "inVitro/2.bin": CONTENT[:9]})
    archive.write_bytes(spoil(bytearray(archive.read_bytes())))
    with pytest.raises(DataError, match=rf"cannot be unpacked \(.*{reason}.*delete it and run"):
        download_grozi(tmp_path)
    assert [path.name for path in grozi.iterdir()] == ["inVitro.zip"], "no hash to go by either"


# The command line


def test_failed_downloads_are_explained(address, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grozi_download, "_ARCHIVES", f"{address}/elsewhere")
    assert main(["download", "grozi-120", "--data-root", str(tmp_path)]) == 1
    assert re.search("404.*put it into", capsys.readouterr().err)
    assert main(["download", "capg-gp", "--data-root", str(tmp_path)]) == 1
    assert "zju-capg.org/capg-gp.html" in capsys.readouterr().out


def test_check_prints_findings(tmp_path, capsys):
    write_grozi(tmp_path / "grozi-120")
    assert main(["check", "grozi-120", "--data-root", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "coordinates.txt has all its lines twice" in printed
    assert printed.endswith(f"grozi-120 in {tmp_path}: 6 findings\n")
    assert main(["check", "embedded", "--data-root", str(tmp_path)]) == 0
    assert main(["check", "grocery-store", "--data-root", str(tmp_path)]) == 1
    assert "is not the Grocery Store Dataset" in capsys.readouterr().out


def test_a_command_line_that_cannot_be_used(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LCA_DATA_ROOT", raising=False)
    assert main(["check", "imagenet", "--data-root", str(tmp_path)]) == 2
    assert "expected one of embedded, grocery-store, grozi-120" in capsys.readouterr().err
    assert main(["check", "grozi-120"]) == 2
    assert "pass --data-root DIR or set LCA_DATA_ROOT" in capsys.readouterr().err
    monkeypatch.setenv("LCA_DATA_ROOT", str(tmp_path))
    assert main(["check", "grozi-120"]) == 1
