"""Files fetched over HTTP, from a server on this machine, and archives unpacked."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from experiments.data import download, grozi_download
from experiments.data.__main__ import main
from experiments.data.archives import ArchiveError, unpack
from experiments.data.dataset import DataError
from experiments.data.download import DownloadError, fetch, record_sha256, recorded_sha256
from experiments.data.grozi import load_grozi
from experiments.data.grozi_check import check_grozi
from experiments.data.grozi_download import download_grozi
from tests.grozi_tree import write_grozi

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` by path.

    Attributes:
        cut: how many bytes of each of the next answers are sent before the connection is closed.
        ignores_range: answers with the whole file, whatever part was asked for.
        asked: (path, Range header) of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: list[int] = []
        self.ignores_range = False
        self.asked: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if wanted and not self.server.ignores_range:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            end = f"{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", f"bytes {start}-{end}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: self.server.cut.pop(0)] if self.server.cut else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        running.files["/photos.bin"] = CONTENT
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "data" / "photos.bin"


def part_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


def starts(server: Server) -> list[str | None]:
    return [wanted for _, wanted in server.asked]


# Fetching


def test_a_file_is_fetched_and_checked(server, file):
    fetch(server.url("/photos.bin"), file, sha256=DIGEST.upper(), size=len(CONTENT))
    assert file.read_bytes() == CONTENT
    assert not part_of(file).exists()
    assert starts(server) == [None]


def test_a_cut_connection_is_continued_where_it_broke(server, file):
    server.cut = [300_000, 200_000]
    fetch(server.url("/photos.bin"), file, sha256=DIGEST)
    assert file.read_bytes() == CONTENT
    assert starts(server) == [None, "bytes=300000-", "bytes=500000-"]


def test_what_an_earlier_run_left_is_continued(server, file):
    server.cut = [300_000, 0]
    with pytest.raises(DownloadError, match="cut after 300000 of 1048576 bytes") as raised:
        fetch(server.url("/photos.bin"), file)
    assert f"300000 bytes are kept in {part_of(file)}: run this again" in str(raised.value)
    assert part_of(file).read_bytes() == CONTENT[:300_000]
    assert not file.exists()
    fetch(server.url("/photos.bin"), file, sha256=DIGEST)
    assert file.read_bytes() == CONTENT
    assert starts(server)[-1] == "bytes=300000-"


def test_a_server_that_ignores_range_starts_again(server, file):
    server.ignores_range = True
    server.cut = [300_000]
    fetch(server.url("/photos.bin"), file, sha256=DIGEST)
    assert file.read_bytes() == CONTENT
    assert starts(server) == [None, "bytes=300000-"]


def test_a_part_that_is_whole_already_is_taken(server, file):
    file.parent.mkdir()
    part_of(file).write_bytes(CONTENT)
    fetch(server.url("/photos.bin"), file, sha256=DIGEST)
    assert file.read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_fetched_anew(server, file):
    file.parent.mkdir()
    part_of(file).write_bytes(CONTENT + b"of another file")
    fetch(server.url("/photos.bin"), file, sha256=DIGEST)
    assert file.read_bytes() == CONTENT
    assert starts(server)[-1] is None


@pytest.mark.parametrize(
    ("expected", "message"),
    [({"sha256": "0" * 64}, f"has the sha256 {DIGEST}, expected 000"), ({"size": 7}, "expected 7")],
)
def test_the_wrong_file_is_refused_and_removed(server, file, expected, message):
    with pytest.raises(DownloadError, match=message) as raised:
        fetch(server.url("/photos.bin"), file, **expected)
    assert "has been removed" in str(raised.value)
    assert list(file.parent.iterdir()) == []


def test_the_file_that_is_there_stays_when_another_is_refused(server, file):
    file.parent.mkdir()
    file.write_bytes(b"mine")
    with pytest.raises(DownloadError):
        fetch(server.url("/photos.bin"), file, sha256="0" * 64)
    assert file.read_bytes() == b"mine"


def test_404_says_what_to_do_by_hand(server, file):
    with pytest.raises(DownloadError) as raised:
        fetch(server.url("/gone.zip"), file, by_hand="get gone.zip from the library")
    url = server.url("/gone.zip")
    assert f"the server answers 404 Not Found for {url}" in str(raised.value)
    assert str(raised.value).endswith("get gone.zip from the library")
    assert len(server.asked) == 1, "a second answer would be the same"


def test_a_silent_server_is_given_up(file, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/photos.bin"
        with pytest.raises(DownloadError, match=r"said nothing for 0\.2 seconds") as raised:
            fetch(url, file)
    assert f"download it by hand to {file}" in str(raised.value)


def test_a_server_that_is_not_there_is_named(file):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/photos.bin"
    with pytest.raises(DownloadError, match=r"could not be fetched: .*refused"):
        fetch(url, file)


def test_other_kinds_of_address_are_refused(file, tmp_path):
    with pytest.raises(DownloadError, match="expected one with http"):
        fetch((tmp_path / "photos.bin").as_uri(), file)


def test_the_first_hash_is_recorded_as_sha256sum_writes_it(file):
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    assert recorded_sha256(file) is None
    record_sha256(file)
    assert recorded_sha256(file) == DIGEST
    record = file.with_name("photos.bin.sha256")
    assert record.read_text() == f"{DIGEST}  photos.bin\n"
    record.write_text("no hash")
    with pytest.raises(DownloadError, match=f"{re.escape(str(record))} does not begin with"):
        recorded_sha256(file)


# Unpacking


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, *members: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            content = member.name.encode() if member.isreg() else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def refused(archive: Path, **options) -> str:
    folder = archive.parent / "unpacked"
    with pytest.raises(ArchiveError) as raised:
        unpack(archive, folder, **options)
    assert list(folder.iterdir()) == [], "nothing is left behind"
    return str(raised.value)


def files_in(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_archives_are_unpacked(tmp_path, kind):
    names = ["a/1.txt", "a/b/2.txt", "3.txt"]
    if kind == "zip":
        archive = zipped(tmp_path / "x.zip", {name: name.encode() for name in names})
    else:
        mode = f"w:{kind[4:]}"
        archive = tarred(tmp_path / f"x.{kind}", *map(member, names), mode=mode)
    unpack(archive, tmp_path / "unpacked", expected=["a/", "a/b/", "a/b/2.txt", "3.txt"])
    assert files_in(tmp_path / "unpacked") == {name: name.encode() for name in names}


def test_other_files_stay_and_equal_names_are_replaced(tmp_path):
    folder = tmp_path / "unpacked"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "mine.txt").write_bytes(b"mine")
    (folder / "a" / "1.txt").write_bytes(b"old")
    mode = stat.S_IMODE(folder.stat().st_mode)
    unpack(zipped(tmp_path / "x.zip", {"a/1.txt": b"new"}), folder)
    assert files_in(folder) == {"a/1.txt": b"new", "a/mine.txt": b"mine"}
    assert stat.S_IMODE(folder.stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python refuses all links")
def test_links_within_a_tar_are_kept(tmp_path):
    link = member("a/link.txt", tarfile.SYMTYPE, "../1.txt")
    unpack(tarred(tmp_path / "x.tar.gz", member("1.txt"), link), tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "a" / "link.txt").read_bytes() == b"1.txt"


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_truncated_archive_is_explained(tmp_path, kind, keep):
    if kind == "zip":
        archive = zipped(tmp_path / "x.zip", {f"{k}.bin": CONTENT[:5000] for k in range(20)})
    else:
        members = [member(f"{k}{'x' * 80}.bin") for k in range(200)]
        archive = tarred(tmp_path / "x.tar.gz", *members)
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    message = refused(archive)
    assert str(archive) in message
    assert "cut off" in message
    assert "delete it and download it again" in message


def test_a_damaged_member_changes_nothing(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"1.bin": CONTENT[:5000], "2.bin": CONTENT[:5000]})
    content = bytearray(archive.read_bytes())
    content[7000] ^= 1  # in the second member
    archive.write_bytes(content)
    assert "is cut off or damaged (Bad CRC-32 for file '2.bin')" in refused(archive)


def test_a_compression_that_python_cannot_read_is_named(tmp_path):
    """Windows writes Deflate64, method 9, for large files."""
    archive = zipped(tmp_path / "x.zip", {"1.bin": CONTENT[:5000], "2.bin": CONTENT[:5000]})
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x03\x04") + 8] = 9  # of the second member
    content[content.rindex(b"PK\x01\x02") + 10] = 9
    archive.write_bytes(content)
    message = refused(archive)
    assert "compressed in a way that Python cannot read" in message
    assert f"unpack it by hand into {tmp_path / 'unpacked'}" in message


def test_a_page_instead_of_an_archive_is_named(tmp_path):
    (tmp_path / "x.zip").write_text("<html>log in first</html>")
    assert "(25 bytes) is no zip or tar archive" in refused(tmp_path / "x.zip")


@pytest.mark.parametrize(
    "name", ["/etc/evil", "../evil", "a/../../evil", "C:/evil", "..\\evil", "a\\..\\..\\evil"]
)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_members_that_lead_out_are_refused(tmp_path, kind, name):
    if kind == "zip":
        archive = zipped(tmp_path / "x.zip", {"good.txt": b"good", name: b"evil"})
    else:
        archive = tarred(tmp_path / "x.tar.gz", member("good.txt"), member(name))
    message = refused(archive)
    assert "is not safe to unpack and was left alone" in message
    assert f"{name} leads out of the folder" in message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../passwd"])
def test_links_that_lead_out_of_a_tar_are_refused(tmp_path, kind, target):
    archive = tarred(tmp_path / "x.tar", member("a/b", kind, target), mode="w:")
    assert f"a/b is a link to {target}, out of the folder" in refused(archive)


def test_files_behind_a_chain_of_links_are_refused(tmp_path):
    """Each link looks as if it stayed inside; followed one after the other they lead out."""
    archive = tarred(
        tmp_path / "x.tar",
        member("a/b/c", tarfile.SYMTYPE, ".."),
        member("a/b/c/d", tarfile.SYMTYPE, "../.."),
        member("a/d/evil"),
        mode="w:",
    )
    refused(archive)
    assert not list(tmp_path.rglob("evil"))


def test_devices_in_a_tar_are_refused(tmp_path):
    archive = tarred(tmp_path / "x.tar", member("pipe", tarfile.FIFOTYPE), mode="w:")
    assert "pipe is neither a file nor a folder" in refused(archive)


def test_links_and_encrypted_members_of_a_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "link is a link" in refused(tmp_path / "x.zip")
    encrypted = zipped(tmp_path / "y.zip", {"secret.txt": b"secret"})
    content = bytearray(encrypted.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the table of contents
    encrypted.write_bytes(content)
    assert "secret.txt is encrypted" in refused(encrypted)


def test_missing_members_are_counted(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"inVitro/1/a.jpg": b""})
    expected = [f"inVitro/{product}/" for product in range(1, 9)]
    message = refused(archive, expected=expected)
    assert "lacks 7 of 8 members that are expected (inVitro/2/, inVitro/3/" in message


# GroZi-120 from end to end


@pytest.fixture
def served(server, tmp_path, monkeypatch) -> Callable[..., Server]:
    """Serve GroZi-120 in small, of the products its tree has."""
    tree = write_grozi(tmp_path / "tree")
    for part in ("inVitro", "inSitu"):
        members = {f"{part}/{name}": content for name, content in files_in(tree / part).items()}
        archive = zipped(tmp_path / f"{part}.zip", members)
        server.files[f"/{part}.zip"] = archive.read_bytes()
    monkeypatch.setattr(grozi_download, "_ARCHIVES", server.url(""))
    monkeypatch.setattr(grozi_download, "PRODUCTS", (1, 2, 3, 82))
    return server


def test_grozi_is_fetched_unpacked_and_read(served, tmp_path, capsys):
    assert main(["download", "grozi-120", "--data-root", str(tmp_path)]) == 1, "findings remain"
    assert "UPC_index.txt is missing" in capsys.readouterr().out
    folder = tmp_path / "grozi-120"
    for part in ("inVitro", "inSitu"):
        assert files_in(folder / part) == files_in(tmp_path / "tree" / part)
        assert recorded_sha256(folder / f"{part}.zip")
    assert load_grozi(tmp_path, "in-vitro").classes[0] == "product 1"
    assert check_grozi(tmp_path)[0].endswith("products are named by their numbers alone.")


def test_an_archive_that_is_there_is_not_fetched(served, tmp_path):
    download_grozi(tmp_path)
    asked = len(served.asked)
    (tmp_path / "grozi-120" / "inSitu" / "1" / "coordinates.txt").unlink()
    download_grozi(tmp_path)
    assert len(served.asked) == asked
    assert (tmp_path / "grozi-120" / "inSitu" / "1" / "coordinates.txt").exists()


def test_another_archive_than_the_first_is_refused(served, tmp_path):
    download_grozi(tmp_path)
    archive = tmp_path / "grozi-120" / "inSitu.zip"
    archive.unlink()
    served.files["/inSitu.zip"] = served.files["/inVitro.zip"]
    with pytest.raises(DownloadError, match="has been removed; run this again, or get inSitu"):
        download_grozi(tmp_path)
    assert not archive.exists()
    assert (tmp_path / "grozi-120" / "inSitu" / "1" / "coordinates.txt").exists()


def test_an_incomplete_archive_is_no_reference(served, tmp_path):
    served.files["/inVitro.zip"] = served.files["/inVitro.zip"][:2000]
    with pytest.raises(DataError, match="a zip archive whose end is missing"):
        download_grozi(tmp_path)
    assert recorded_sha256(tmp_path / "grozi-120" / "inVitro.zip") is None


# The command line


def test_failed_downloads_are_explained(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grozi_download, "_ARCHIVES", server.url("/elsewhere"))
    assert main(["download", "grozi-120", "--data-root", str(tmp_path)]) == 1
    assert "put it into" in capsys.readouterr().err
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
