"""`serve.py`: a page on a free port of this machine, asked by HTTP and in a browser."""

from __future__ import annotations

import http.client
import io
import json
import re
import resource
import shutil
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the page needs the extra `serve`")

import httpx

from experiments.deploy.gallery_folder import changing
from experiments.enroll import main as enroll
from experiments.serve import Options, main, serving
from lca_fused import load_classifier
from lca_fused.decision import Decision
from tests.browser import BROWSER, DESKTOP, PHONE, Page
from tests.products import COLOURS, write_photos
from tests.stored_models import build, write_model

pytestmark = pytest.mark.slow

NAMES = sorted(COLOURS)
UPLOAD = 0.2  # megabytes
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")


class Client:
    """What a browser does, without one."""

    def __init__(self, address: str, folder: Path) -> None:
        self.folder = folder
        # A new connection each time: some answers end one.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=address, timeout=60, trust_env=False, limits=limits)

    def upload(self, name: str, content: bytes) -> str:
        answer = self.http.post("gradio_api/upload", files={"files": (name, content)})
        assert answer.status_code == 200, answer.text
        (path,) = answer.json()
        return path

    def call(self, function: str, *arguments: object) -> list[object]:
        """Return what a function of the page returned at last."""
        asked = self.http.post(f"gradio_api/call/{function}", json={"data": arguments})
        assert asked.status_code == 200, asked.text
        events = self.http.get(f"gradio_api/call/{function}/{asked.json()['event_id']}").text
        last = re.findall(r"event: (\w+)\ndata: (.*)", events)[-1]
        assert last[0] == "complete", events
        return json.loads(last[1])

    def ask(self, path: str) -> str:
        """Return what is said of a photo that was uploaded."""
        return text(self.call("recognise", sent(path))[0])

    def recognise(self, photo: Path) -> str:
        return self.ask(self.upload(photo.name, photo.read_bytes()))

    def about(self) -> str:
        return text(self.call("about")[0])

    def enroll(self, name: str, *photos: Path, replace: bool = False) -> str:
        files = [sent(self.upload(photo.name, photo.read_bytes())) for photo in photos]
        return text(self.call("enroll", name, files, replace)[0])


def sent(path: str) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def text(html: object) -> str:
    """What can be read of HTML."""
    return re.sub(r"<[^>]*>", " ", str(html)).strip()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def client(model: Path, **options: object):
    asked = Options(
        model=str(model),
        port=free_port(),
        device="cpu",
        precision="float32",
        max_upload_mb=UPLOAD,
        **options,
    )
    with serving(asked) as address:
        yield Client(address, model)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), train=2, test=2)


@pytest.fixture(scope="module")
def stored(photos, tmp_path_factory) -> Path:
    """A gallery of the first two products, as it is at first."""
    folder = tmp_path_factory.mktemp("stored")
    for name in NAMES[:2]:
        shutil.copytree(photos / "train" / name, folder / "two" / name)
    model = str(write_model(folder / "lca.model"))
    gallery = folder / "gallery"
    assert enroll([str(gallery), str(folder / "two"), "--model", model, "--device", "cpu"]) == 0
    return gallery


@pytest.fixture(scope="module")
def server(stored, tmp_path_factory):
    """One for all tests; `page` puts its gallery as it was."""
    folder = tmp_path_factory.mktemp("served") / "gallery"
    shutil.copytree(stored, folder)
    with client(folder) as one:
        yield one


@pytest.fixture
def drawing_page(server, stored) -> Client:
    fill(server.folder, stored)
    return server


@pytest.fixture
def page(drawing_page, monkeypatch) -> Client:
    """Without the pictures, which take longer to draw than everything else."""
    from experiments.deploy import web_page

    monkeypatch.setattr(web_page, "_pictures", lambda *_: [])
    return drawing_page


def fill(folder: Path, source: Path) -> None:
    """Make the content of a folder that of another."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(source, folder, dirs_exist_ok=True)


def photo_of(photos: Path, name: str) -> Path:
    return photos / "test" / name / "0.png"


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kB that unpacks to a grey picture of this size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    packer = zlib.compressobj(9)
    row = bytes(1 + width)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_a_photo_is_named_and_explained(drawing_page, photos):
    page = drawing_page
    photo = photo_of(photos, NAMES[0])
    said, top, explained, *pictures, about = page.call(
        "recognise", sent(page.upload(photo.name, photo.read_bytes()))
    )
    prediction = load_classifier(page.folder).predict(photo)
    assert f"{NAMES[0]}, {100 * prediction.probability:.1f} %" in text(said)
    assert "not calibrated" in said
    found = {one["label"]: one["confidence"] for one in top["value"]["confidences"]}
    assert found == pytest.approx(dict(prediction.top), abs=1e-4)
    assert explained["visible"]
    for picture in pictures:
        content = page.http.get(urlsplit(picture["value"]["url"]).path).content
        assert Image.open(io.BytesIO(content)).width > 400
    assert "gallery: 2 products, lca on embedded" in about


def test_what_the_model_is_not_sure_of_is_unknown(page, photos):
    classifier = load_classifier(page.folder)
    surer_than_any = Decision(temperature=2.0, score="max-logit", threshold=31.0)
    classifier.description = classifier.description.__class__(
        **{**vars(classifier.description), "decision": surer_than_any}
    )
    classifier.save_pretrained(page.folder)
    said = page.recognise(photo_of(photos, NAMES[0]))
    probability = classifier.predict(photo_of(photos, NAMES[0])).probability
    assert said.startswith("Unknown")
    assert f"most like {NAMES[0]}, {100 * probability:.1f} %" in said
    assert "not calibrated" not in said


def test_a_product_is_enrolled_and_then_recognised(page, photos):
    new = photo_of(photos, NAMES[2])
    assert not page.recognise(new).startswith(NAMES[2])
    training = sorted((photos / "train" / NAMES[2]).iterdir())
    assert f"{NAMES[2]} is enrolled from 2 of 2 photos." in page.enroll(NAMES[2], *training)
    assert page.recognise(new).startswith(NAMES[2])
    gallery = load_classifier(page.folder).classifier
    assert gallery.counts() == dict.fromkeys(NAMES, 2)
    assert {path.name for path in (page.folder / "photos").iterdir()} == set(gallery.photos)
    assert "known already; tick the box" in page.enroll(NAMES[2], new)
    said = page.enroll(f"  {NAMES[2]} ", new, replace=True)
    assert f"{NAMES[2]} is replaced by 1 of 1 photos." in said
    assert load_classifier(page.folder).classifier.counts()[NAMES[2]] == 1


def test_what_cannot_be_enrolled_changes_nothing(page, photos, tmp_path):
    before = (page.folder / "config.json").read_bytes()
    good = photo_of(photos, NAMES[2])
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:200])
    assert "no name" in page.enroll(" ", good)
    assert "expected at most 100" in page.enroll("x" * 101, good)
    assert "expected at most 100, all of them printable" in page.enroll("a\x07b", good)
    assert "No photos were given" in page.enroll("milk")
    assert "cut.png is left out: truncated or damaged" in page.enroll("milk", cut)
    with changing(page.folder):
        assert "cannot be changed now: another program" in page.enroll("milk", good)
    assert (page.folder / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    "path",
    [
        "{folder}/config.json",
        "{folder}/../gallery/config.json",
        "{uploads}/../{name}/config.json",
        "{uploads}/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "../../../../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "//etc/passwd",
        "/proc/self/environ",
        "{here}",
        "http://127.0.0.1:1/",
        "HTTPS://127.0.0.1:1/",
    ],
)
@pytest.mark.parametrize("route", ["file=", "file/", "stream/", "proxy=", "../", "../static/"])
def test_no_file_of_the_server_can_be_read(page, photos, path, route):
    if "uploads" in path:
        photo = photo_of(photos, NAMES[0])
        uploads = Path(page.upload(photo.name, photo.read_bytes())).parent
        path = path.format(uploads=uploads, name=f"../../{page.folder}", folder="")
    path = path.format(folder=page.folder, here=__file__)
    # Without a client's library, which would tidy it up.
    connection = http.client.HTTPConnection(page.http.base_url.netloc.decode(), timeout=60)
    connection.request("GET", f"/gradio_api/{route}{path}")
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status in (400, 403, 404, 405, 307)
    assert len(content) < 500


def test_only_what_was_sent_here_is_looked_at(page, photos):
    inside = photo_of(photos, NAMES[0])
    for path in (str(inside), "/etc/passwd", f"{page.folder}/photos/../config.json"):
        asked = page.http.post("gradio_api/call/recognise", json={"data": [sent(path)]})
        found = page.http.get(f"gradio_api/call/recognise/{asked.json()['event_id']}").text
        assert "event: error" in found
        assert "root:" not in found
    for value in ({"path": str(inside)}, {"path": None, "url": "data:image/png;base64,AA"}, "x", 3):
        asked = page.http.post("gradio_api/call/recognise", json={"data": [value]})
        found = page.http.get(f"gradio_api/call/recognise/{asked.json()['event_id']}").text
        assert "event: error" in found or "no photo that was sent to this page" in found


def test_the_server_fetches_nothing_and_answers_no_other_page(page, photos):
    call, data = "gradio_api/call/recognise", {"data": [sent("https://127.0.0.1:1/a.png")]}
    assert page.http.post(call, json=data).status_code == 403
    escaped = json.dumps(data).replace("https", "\\u0068ttps")
    as_json = {"content-type": "application/json"}
    assert page.http.post(call, content=escaped, headers=as_json).status_code == 403
    elsewhere = {"origin": "http://example.com"}
    assert page.http.post(call, json={"data": [None]}, headers=elsewhere).status_code == 403
    photo = {"files": ("a.png", photo_of(photos, NAMES[0]).read_bytes())}
    refused = page.http.post("gradio_api/upload", files=photo, headers=elsewhere)
    assert refused.status_code == 403
    assert page.http.get("", headers={"host": "example.com"}).status_code == 403
    plain = {"content-type": "text/plain"}
    assert page.http.post(call, content='{"data": [null]}', headers=plain).status_code >= 400


def test_pages_and_settings_name_no_file_of_the_server(page):
    for address in ("", "config", "gradio_api/info"):
        answer = page.http.get(address)
        assert answer.status_code == 200
        assert str(page.folder) not in answer.text
        assert str(page.folder.parent) not in answer.text


def test_an_upload_that_is_too_large_is_refused(page):
    uploads = Path(page.upload("a.png", b"x" * 1000)).parents[1]
    one = {"files": ("a.png", bytes(round(UPLOAD * 1.1e6)))}
    answer = page.http.post("gradio_api/upload", files=one)
    assert answer.status_code == 413
    assert "maximum allowed size" in answer.text
    many = [("files", (f"{k}.png", bytes([k]) * round(UPLOAD * 0.9e6))) for k in range(5)]
    answer = page.http.post("gradio_api/upload", files=many)
    assert answer.status_code == 413
    assert "Too much at once: a request may have 0.8 MB" in answer.text
    assert uploads.exists()
    assert sum(path.stat().st_size for path in uploads.rglob("*") if path.is_file()) < 2e6


@pytest.mark.parametrize("told", [True, False])
def test_200_megabytes_are_refused_and_not_kept(page, told):
    uploads = Path(page.upload("a.png", b"x")).parents[1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection = http.client.HTTPConnection(page.http.base_url.netloc.decode(), timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    length = ("Content-Length", "200000000") if told else ("Transfer-Encoding", "chunked")
    connection.putheader(*length)
    connection.endheaders()
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    for part in [head.ljust(1_000_000, b"x"), *[bytes(1_000_000)] * 199]:
        connection.send(part if told else b"%x\r\n%s\r\n" % (len(part), part))
    if not told:
        connection.send(b"0\r\n\r\n")
    answer = connection.getresponse()
    assert answer.status == 413
    answer.read()
    connection.close()
    assert sum(path.stat().st_size for path in uploads.rglob("*") if path.is_file()) < 4e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kB"


def test_a_small_file_that_unpacks_to_a_huge_photo_is_refused(page):
    content = bomb(12_000, 10_000)
    assert len(content) < 200_000
    said = page.ask(page.upload("bomb.png", content))
    assert "too large: 12000 x 10000 pixels, more than 100 megapixels" in said
    header_of_more = content[:16] + struct.pack(">II", 50_000, 50_000) + content[24:]
    crc = struct.pack(">I", zlib.crc32(header_of_more[12:29]))
    said = page.ask(page.upload("bomb.png", header_of_more[:29] + crc + header_of_more[33:]))
    assert "Pillow refuses to decode it" in said
    assert "/" not in said.replace("kB/", ""), "no path of the server"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no photo of a kind"),
        (b"<html>404</html>", "is no photo of a kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no photo of a kind"),
        (b"\x89PNG\r\n\x1a\nrubbish", "not an image"),
    ],
)
def test_what_is_no_photo_is_refused_with_a_sentence(page, content, message):
    assert message in page.ask(page.upload("a.png", content))


def test_ten_at_a_time_are_answered_alike(page, photos):
    asked = [photo_of(photos, name) for name in NAMES[:2]] * 5
    alone = {photo: page.recognise(photo) for photo in set(asked)}
    with ThreadPoolExecutor(10) as pool:
        said = list(pool.map(page.recognise, asked))
    assert said == [alone[photo] for photo in asked]


def test_a_folder_that_changes_underneath(page, photos, tmp_path):
    photo, gallery = photo_of(photos, NAMES[0]), page.folder
    before, loaded = page.recognise(photo), page.about()
    weights = (gallery / "model.safetensors").read_bytes()

    (gallery / "model.safetensors").write_bytes(weights[:5000])
    assert page.recognise(photo) == before
    assert "has changed and cannot be used as it is" in page.about()
    assert str(gallery) not in page.about()

    (gallery / "config.json").unlink()
    assert page.recognise(photo) == before
    assert "cannot be used" in page.about()

    build(seed=1).save_pretrained(tmp_path / "other")
    fill(gallery, tmp_path / "other")
    top = load_classifier(gallery).predict(photo).top[0]
    assert f"{top[0]}, {100 * top[1]:.1f} %" in page.recognise(photo)
    assert "gallery: 3 products" in page.about()
    assert "cannot be used" not in page.about()
    assert page.about() != loaded
    assert "not a gallery any more" in page.enroll("milk", photo)


@pytest.mark.parametrize("options", [{"enrolling": "refuse"}, {"host": "0.0.0.0"}])
def test_enrolling_can_be_refused(stored, photos, options):
    with client(stored, **options) as one:
        address = one.http.base_url.copy_with(host="127.0.0.1")
        here = Client(str(address), stored)
        assert "enroll" not in here.http.get("gradio_api/info").text
        asked = here.http.post("gradio_api/call/enroll", json={"data": ["milk", [], False]})
        assert asked.status_code >= 400 or "error" in (
            here.http.get(f"gradio_api/call/enroll/{asked.json()['event_id']}").text
        )
        assert here.recognise(photo_of(photos, NAMES[0])).startswith(NAMES[0])


def test_what_was_sent_goes_with_the_server(stored, photos):
    with client(stored) as one:
        uploaded = Path(one.upload("a.png", photo_of(photos, NAMES[0]).read_bytes()))
        assert uploaded.exists()
        assert uploaded.parents[1].stat().st_mode & 0o077 == 0, "for this user alone"
    assert not uploaded.parents[1].exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere", "there is no nowhere"),
        ("{stored} --port {taken}", "is it taken? Name another with --port"),
        ("{stored} --device cuda:99", "cuda:99"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(stored, server, caplog, words, message):
    taken = server.http.base_url.port
    assert main(words.format(stored=stored, taken=taken).split()) == 2
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert message in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no MODEL is given"),
        (["M", "--top-k", "0"], "--top-k is 0"),
        (["M", "--max-megapixels", "500"], "at most 178"),
        (["M", "--max-upload-mb", "0"], "more than 0"),
        (["M", "--port", "0"], "1 to 65535"),
    ],
)
def test_options_that_do_not_go_are_refused(options, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(options)
    assert error.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_a_space_says_which_model_and_listens_to_all(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "owner/name")
    monkeypatch.setenv("LCA_MODEL", "hf-hub:owner/model")
    options = Options()
    assert options.model == "hf-hub:owner/model"
    assert options.host == "0.0.0.0"
    assert not options.enrolls
    monkeypatch.delenv("SPACE_ID")
    assert Options().host == "127.0.0.1"
    assert Options().enrolls


@needs_browser
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_in_a_browser(drawing_page, photos, tmp_path, width):
    address = str(drawing_page.http.base_url)
    with Page(tmp_path / "profile", address, width) as shown:
        chooser = "#photo input[type=file]"
        shown.wait(f"document.querySelector({chooser!r}) !== null")
        assert shown.js(f"document.querySelector({chooser!r}).accept") == "image/*"
        shown.choose_files(chooser, photo_of(photos, NAMES[0]))
        assert shown.wait("document.querySelector('#verdict b')?.innerText").startswith(NAMES[0])
        pictures = "[...document.images].filter(one => one.alt.match(/heat map|local concepts/))"
        shown.wait(f"{pictures}.length === 4 && {pictures}.every(one => one.naturalWidth > 400)")
        assert shown.js("document.documentElement.scrollWidth") <= width
        assert shown.js(f"{pictures}.every(one => one.getBoundingClientRect().right <= {width})")
        assert shown.complaints == []
        own = (address, "data:", "blob:")
        outside = [one for one in shown.requested if not one.startswith(own)]
        assert outside == []


@needs_browser
def test_a_product_is_enrolled_in_a_browser_and_its_name_is_only_text(page, photos, tmp_path):
    name = "<img src=x onerror=document.title='hit'>${1+1}{{1+1}}"
    training = sorted((photos / "train" / NAMES[2]).iterdir())
    with Page(tmp_path / "profile", str(page.http.base_url), PHONE) as shown:
        shown.wait("document.querySelector('#photo input[type=file]') !== null")
        tabs = "[...document.querySelectorAll('[role=tab]')]"
        shown.js(f"{tabs}.find(one => one.innerText.startsWith('Enroll')).click()")
        shown.wait("document.querySelector('#photos input[type=file]') !== null")
        shown.type("textarea, input[type=text]", name)
        shown.choose_files("#photos input[type=file]", *training)
        shown.wait("/1\\s*[.]png/.test(document.querySelector('#photos').innerText)")
        shown.click("#enroll")
        said = shown.wait("document.querySelector('#enrolled p')?.innerText")
        assert f"{name} is enrolled from 2 of 2 photos." in said
        shown.js(f"{tabs}.find(one => one.innerText.startsWith('Recognise')).click()")
        shown.choose_files("#photo input[type=file]", photo_of(photos, NAMES[2]))
        said = shown.wait("document.querySelector('#verdict b')?.innerText")
        assert said.startswith(name)
        assert name in shown.js("document.body.innerText")
        assert shown.js("document.title") == "Which product is it?"


@needs_browser
def test_the_page_says_what_it_refuses(page, tmp_path):
    small, large = tmp_path / "bomb.png", tmp_path / "large.png"
    small.write_bytes(bomb(12_000, 10_000))
    large.write_bytes(bomb(100, 100) + bytes(round(UPLOAD * 1.1e6)))
    with Page(tmp_path / "profile", str(page.http.base_url), DESKTOP) as shown:
        chooser = "#photo input[type=file]"
        shown.wait(f"document.querySelector({chooser!r}) !== null")
        shown.choose_files(chooser, large)
        shown.wait("/too large|exceeds|maximum/i.test(document.body.innerText)")
        shown.choose_files(chooser, small)
        said = shown.wait("document.querySelector('#verdict p')?.innerText")
        assert "more than 100 megapixels" in said
        (page.folder / "config.json").write_text("{")
        shown.js("location.reload()")
        time.sleep(0.5)
        shown.wait("document.body?.innerText.includes('cannot be used as it is')")
