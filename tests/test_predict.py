"""`predict.py` from end to end: rows, pictures, and photos of every kind of badness."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data.dataset import ProductDataset, Sample
from experiments.deploy.inference import MAX_MEGAPIXELS, MEGAPIXEL, PhotoReader, find_photos
from experiments.deploy.prediction_rows import (
    CsvWriter,
    JsonLinesWriter,
    NoReaderError,
    PhotoRow,
)
from experiments.predict import Predictor, main
from experiments.training.photos import Photos
from experiments.training.recipe import Recipe
from lca_fused import Classifier, load_classifier
from lca_fused.photos.reading import ImageError, image_size
from lca_fused.prediction import Prediction
from tests.products import COLOURS, write_photos
from tests.stored_models import write_model

ROOT = Path(__file__).parents[1]
FAST = ["--device", "cpu", "--precision", "float32", "--workers", "0"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "lca-seed0.model")


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_photos(tmp_path / "photos", train=1, test=2) / "test"


def noise(path: Path, mode: str = "RGB", side: int = 64) -> Path:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (side, side, channels) if channels > 1 else (side, side)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return path


def huge_png(path: Path, side: int = 20_000) -> Path:
    """A PNG of a few kilobytes whose header promises side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def predict(model: Path, *arguments: object, status: int = 0) -> None:
    assert main([str(model), *map(str, arguments), *FAST]) == status


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def as_seen(model: Path, photos: Path) -> tuple[Classifier, list[Path], torch.Tensor]:
    """Return the classifier, the photos' paths and what the network sees of them."""
    loaded, paths = load_classifier(model), find_photos([photos])
    reader = PhotoReader(paths, loaded.description.preprocessing, 10**8)
    return loaded, paths, torch.stack([image for _, image in reader])


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_csv_holds_the_librarys_own_predictions_in_order(model, photos, tmp_path):
    output = tmp_path / "new folder" / "rows.csv"
    predict(model, photos, "--output", output, "--top-k", 2, "--batch-size", 4)
    table = rows(output)
    paths = find_photos([photos])
    assert [row["file"] for row in table] == [str(path) for path in paths]
    assert list(table[0]) == [
        "file",
        "name",
        "accepted",
        "class_1",
        "probability_1",
        "class_2",
        "probability_2",
        "error",
    ]
    predictions = load_classifier(model).predict(paths, top_k=2, batch_size=4)
    for row, prediction in zip(table, predictions, strict=True):
        assert [row["class_1"], row["class_2"]] == [name for name, _ in prediction.top]
        written = [float(row["probability_1"]), float(row["probability_2"])]
        assert written == pytest.approx([p for _, p in prediction.top], abs=2e-6)
        assert not row["error"]


def test_jsonl_holds_all_classes_when_k_is_larger(model, photos, tmp_path):
    output = tmp_path / "rows.jsonl"
    predict(model, photos, "--format", "jsonl", "--output", output, "--top-k", 50)
    for row in lines(output):
        assert {entry["class"] for entry in row["predictions"]} == set(COLOURS)
        assert sum(entry["probability"] for entry in row["predictions"]) == pytest.approx(
            1, abs=1e-5
        )


@pytest.mark.slow
def test_rows_go_to_standard_output_and_the_rate_to_standard_error(model, photos):
    command = [sys.executable, "experiments/predict.py", str(model), str(photos), *FAST]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    table = list(csv.DictReader(result.stdout.splitlines()))
    assert len(table) == 6
    assert "img/s" in result.stderr
    assert "6 photos, 0 of them without a prediction" in result.stderr


def test_photos_are_seen_as_the_test_photos_were(model, photos):
    loaded, paths, images = as_seen(model, photos)
    samples = tuple(Sample(path, 0) for path in paths)
    dataset = ProductDataset("folder", ("a",), samples, (), samples)
    scored = Photos.load(dataset, Recipe(), loaded.description.preprocessing).test
    for index, image in enumerate(images):
        assert torch.equal(image, scored[index][0])


def test_workers_change_nothing(model, photos, tmp_path):
    for workers in (0, 2):
        arguments = [str(model), str(photos), "--output", str(tmp_path / f"{workers}.csv")]
        arguments += ["--device", "cpu", "--precision", "float32", "--batch-size", "2"]
        assert main([*arguments, "--workers", str(workers)]) == 0
    assert (tmp_path / "0.csv").read_text() == (tmp_path / "2.csv").read_text()


GOOD = {
    "cmyk.jpg": "CMYK",
    "grey.png": "L",
    "transparent.png": "RGBA",
    "grey-transparent.png": "LA",
}


def test_photos_of_any_colour_mode_are_predicted(model, tmp_path):
    paths = [noise(tmp_path / name, mode) for name, mode in GOOD.items()]
    palette, deep = noise(tmp_path / "palette.png", "P"), tmp_path / "deep.png"
    Image.open(palette).save(palette, transparency=3)
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16).save(deep)
    predict(model, *paths, palette, deep, "--output", tmp_path / "rows.csv")
    table = rows(tmp_path / "rows.csv")
    assert len(table) == 6
    assert all(row["class_1"] and not row["error"] for row in table)


def broken_link(path: Path) -> Path:
    path.symlink_to(path.parent / "gone.jpg")
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def strip(path: Path) -> Path:
    Image.new("RGB", (4000, 2)).save(path)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


BAD = {
    "text.jpg": (lambda path: written(path, b"<html>404</html>"), "not an image"),
    "empty.jpg": (lambda path: written(path, b""), "zero bytes"),
    "cut.png": (lambda path: written(path, noise(path).read_bytes()[:500]), "truncated"),
    "huge.png": (huge_png, "too large"),
    "large.png": (lambda path: huge_png(path, 11_000), "11000 x 11000 pixels, more than 100"),
    "strip.png": (strip, "too narrow"),
    "folder.jpg": (folder, "a folder without photos"),
    "link.jpg": (broken_link, "a broken link"),
    "missing.jpg": (lambda path: path, "no such file"),
    "too long": (lambda path: path.with_name("x" * 300 + ".jpg"), "no such file"),
}
if hasattr(os, "mkfifo"):
    BAD["pipe.jpg"] = (lambda path: os.mkfifo(path) or path, "a pipe")


@pytest.mark.parametrize("name", BAD)
def test_photo_that_cannot_be_used_is_a_row_and_the_others_are_predicted(
    model, tmp_path, capsys, name
):
    make, reason = BAD[name]
    bad, good = make(tmp_path / name), noise(tmp_path / "good.png")
    predict(model, bad, good, "--output", tmp_path / "rows.jsonl", "--format", "jsonl", status=1)
    first, second = lines(tmp_path / "rows.jsonl")
    assert first["file"] == str(bad)
    assert reason in first["error"]
    assert "predictions" not in first
    assert second["predictions"]
    assert f"{bad}: {first['error']}" in capsys.readouterr().err


def test_csv_row_of_an_unreadable_photo_has_empty_classes(model, tmp_path):
    bad = written(tmp_path / "empty.jpg", b"")
    predict(model, bad, "--output", tmp_path / "rows.csv", status=1)
    (row,) = rows(tmp_path / "rows.csv")
    assert row["error"].startswith("zero bytes")
    assert not row["class_1"]
    assert not row["probability_1"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_everything_that_looks_like_a_photo_has_a_row(model, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = tmp_path / "photos"
    (folder / "@eaDir").mkdir(parents=True)
    for name in ("a.png", "@eaDir/thumb.png"):
        noise(folder / name)
    for name, file_format in {"b.avif": "AVIF", "c.gif": "GIF", "d.jfif": "JPEG"}.items():
        if file_format in Image.SAVE:
            Image.new("RGB", (48, 48), "red").save(folder / name, format=file_format)
    errors = {
        "e.JXL": "format that is not read (save as JPEG",
        "f.CR2": "format that is not read (camera raw",
        "g.jpg": "a broken link",
        "h.jpg": "not a file: a pipe",
    }
    for name in ("e.JXL", "f.CR2"):
        (folder / name).write_bytes(b"no image")
    broken_link(folder / "g.jpg")
    os.mkfifo(folder / "h.jpg")
    (folder / "notes.txt").touch()
    predict(model, folder, "--output", tmp_path / "rows.csv", status=1)
    table = {Path(row["file"]).name: row["error"] for row in rows(tmp_path / "rows.csv")}
    assert [name for name, error in table.items() if not error] == [
        path.name for path in sorted(folder.glob("[a-d].*"))
    ]
    for name, reason in errors.items():
        assert reason in table.pop(name)
    assert not any(table.values())
    assert "1 hidden, system" in caplog.text
    assert "1 @eaDir" in caplog.text
    assert "1 TXT" in caplog.text


def test_a_folder_that_cannot_be_read_is_a_row(model, photos, tmp_path, monkeypatch):
    iterdir = Path.iterdir

    def refuse(path: Path):
        if path == photos / "lime":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)  # an administrator may read anything
    predict(model, photos, "--output", tmp_path / "rows.csv", status=1)
    errors = {row["file"]: row["error"] for row in rows(tmp_path / "rows.csv") if row["error"]}
    assert errors == {str(photos / "lime"): "a folder that cannot be read: permission denied"}


@pytest.mark.slow
def test_pictures_among_the_photos_are_not_predicted_the_next_time(model, photos, tmp_path):
    pytest.importorskip("matplotlib")
    predict(model, photos, "--output", tmp_path / "1.csv", "--explain", photos / "lime")
    predict(model, photos, "--output", tmp_path / "2.csv")
    assert len(rows(tmp_path / "1.csv")) == len(rows(tmp_path / "2.csv")) == 6


def test_a_photo_with_the_longest_name_is_explained(model, tmp_path):
    pytest.importorskip("matplotlib")
    names = ["x" * 251 + ".png", "\u00e9" * 125 + "a.png", "\u00e9" * 125 + "b.png"]
    for name in names:
        noise(tmp_path / name)
    paths = [tmp_path / name for name in names]
    predict(model, *paths, "--output", tmp_path / "rows.csv", "--explain", tmp_path / "pictures")
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_larger_photos_can_be_allowed(model, tmp_path):
    photo = noise(tmp_path / "a.png", side=100)
    predict(model, photo, "--output", tmp_path / "a.csv", "--max-megapixels", 0.009, status=1)
    predict(model, photo, "--output", tmp_path / "b.csv", "--max-megapixels", 0.01)


def test_no_more_megapixels_can_be_allowed_than_pillow_decodes(model, tmp_path, capsys):
    assert MAX_MEGAPIXELS == 2 * Image.MAX_IMAGE_PIXELS // MEGAPIXEL
    photo = huge_png(tmp_path / "huge.png", side=14_500)
    with pytest.raises(ImageError, match="Pillow refuses"):
        image_size(photo)
    with pytest.raises(SystemExit) as ended:
        main([str(model), str(photo), *FAST, "--max-megapixels", "211"])
    assert ended.value.code == 2
    assert "--max-megapixels is 211.0; expected at most 178" in capsys.readouterr().err


def test_folders_are_searched_and_every_photo_counts_once(model, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    named = photos / "lime" / "0.png"
    nested = folder(photos / "lime" / "shelf.jpg")
    noise(nested / "deep.png")
    predict(model, named, photos, "lime/0.png", photos, "--output", tmp_path / "rows.csv")
    files = [row["file"] for row in rows(tmp_path / "rows.csv")]
    assert len(files) == 7
    assert files[0] == str(named)
    assert str(nested / "deep.png") in files


def test_name_that_is_no_text_is_written_all_the_same(model, tmp_path):
    try:
        photo = noise(tmp_path / "plain.png").rename(
            os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
        )
    except OSError:
        pytest.skip("this file system takes text alone")
    predict(model, photo, "--output", tmp_path / "rows.csv")
    (row,) = rows(tmp_path / "rows.csv")
    assert row["class_1"]
    lines = tmp_path / "rows.jsonl"
    predict(model, photo, "--format", "jsonl", "--output", lines)
    # Half of a surrogate pair is refused by many readers of JSON.
    assert json.loads(lines.read_text())["file"] == row["file"] == f"{tmp_path}/\\udcff.png"


def test_earlier_output_is_not_overwritten(model, photos, tmp_path, caplog):
    output = tmp_path / "rows.csv"
    output.write_text("precious")
    predict(model, photos, "--output", output, status=2)
    assert output.read_text() == "precious"
    assert str(output) in caplog.text


def many(folder: Path, count: int) -> Path:
    """A folder of `count` photos."""
    folder.mkdir()
    photo = noise(folder.parent / "photo.png", side=256)
    for index in range(count):
        shutil.copy(photo, folder / f"{index:03}.png")
    return folder


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children of a shell's background job ignore Ctrl-C, unless their parent handles it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_interrupted_run_keeps_its_rows(model, tmp_path):
    photos = many(tmp_path / "many", 400)
    output = tmp_path / "rows.csv"
    command = [sys.executable, "experiments/predict.py", str(model), str(photos), *FAST]
    command += ["--output", str(output), "--batch-size", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (output.exists() and len(rows(output)) >= 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "rows written so far are kept" in errors
    assert 3 <= len(rows(output)) < 400
    assert all(row["class_1"] for row in rows(output))


@pytest.mark.slow
def test_reader_that_has_enough_ends_it_quietly(model, tmp_path):
    photos = many(tmp_path / "many", 400)
    command = [sys.executable, "experiments/predict.py", str(model), str(photos), *FAST]
    command += ["--batch-size", "1"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process.stdout as output:
        header, row = output.readline(), output.readline()
    with process.stderr as progress:
        errors = progress.read()
    assert process.wait(timeout=60) == 141, errors
    assert header.startswith("file,")
    assert row.startswith(str(photos))
    words = [line for line in errors.splitlines() if line and not line.startswith("predicting")]
    assert words == []


@pytest.fixture
def pipe():
    """A pipe's read end, as a descriptor, and its write end, as a text file."""
    reading, writing = os.pipe()
    file = open(writing, "w", encoding="utf-8", newline="")  # noqa: SIM115 (closed below)
    yield reading, file
    with suppress(OSError):  # what is left cannot be flushed
        file.close()


def test_rows_into_a_pipe_without_a_reader_are_told_apart(pipe):
    reading, file = pipe
    writer = JsonLinesWriter(file)
    writer.write([PhotoRow(Path("first.jpg"))])
    assert json.loads(os.read(reading, 1000))["file"] == "first.jpg"
    os.close(reading)
    with pytest.raises(NoReaderError):
        writer.write([PhotoRow(Path("second.jpg"))])


def test_header_into_a_pipe_without_a_reader_is_told_apart(pipe):
    reading, file = pipe
    os.close(reading)
    with pytest.raises(NoReaderError):
        CsvWriter(file, 1)


class Failing(io.StringIO):
    """A file whose contents cannot be kept."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EINVAL])
@pytest.mark.parametrize("system", ["posix", "nt"])
def test_other_failures_to_write_are_not_taken_for_a_pipe_without_a_reader(
    monkeypatch, system, number
):
    row = PhotoRow(Path("a.jpg"))
    windows_pipe = system == "nt" and number == errno.EINVAL
    with monkeypatch.context() as patched:  # what Windows says of such a pipe
        patched.setattr(os, "name", system)
        with pytest.raises(NoReaderError if windows_pipe else OSError):
            JsonLinesWriter(Failing(number)).write([row])


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
            ("Tried to allocate 2 GiB", "use a smaller --batch-size"),
        ),
        (  # as torch raises it wherever the program is then
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            ("a process that loads photos was killed", "use fewer --workers", "are kept"),
        ),
    ],
)
def test_memory_that_runs_out_is_explained_and_keeps_the_rows(
    model, photos, tmp_path, monkeypatch, caplog, error, messages
):
    predict_batch, batches = Predictor.predict, []

    def short_of_memory(predictor, *batch):
        batches.append(batch)
        if len(batches) == 3:
            raise error
        return predict_batch(predictor, *batch)

    monkeypatch.setattr(Predictor, "predict", short_of_memory)
    output = tmp_path / "rows.csv"
    predict(model, photos, "--output", output, "--batch-size", "1", status=2)
    assert len(rows(output)) == 2
    assert all(message in caplog.text for message in messages)


def test_output_that_is_not_finite_is_an_error_of_the_photo(model, photos, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")

    def broken(path: Path):
        loaded = load_classifier(path)
        loaded.classifier.register_forward_hook(lambda *_: torch.full((6, 3), torch.inf))
        return loaded

    monkeypatch.setattr("experiments.predict.load_classifier", broken)
    output, pictures = tmp_path / "rows.csv", tmp_path / "pictures"
    predict(model, photos, "--output", output, "--explain", pictures, status=1)
    assert all("not finite" in row["error"] for row in rows(output))
    assert not list(pictures.iterdir())


def test_explain_writes_a_picture_a_photo(model, photos, tmp_path):
    pytest.importorskip("matplotlib")
    pictures = tmp_path / "pictures"
    bad = written(photos / "lime" / "bad.png", b"")
    predict(
        model, photos, "--output", tmp_path / "rows.csv", "--explain", pictures, status=1
    )  # fmt: skip
    names = sorted(path.name for path in pictures.iterdir())
    assert names == sorted(f"{k}.png{again}.png" for k in (0, 1) for again in ("", "-2", "-3"))
    assert bad.exists()
    with Image.open(pictures / names[0]) as picture:
        assert picture.size[0] > picture.size[1] > 200
        assert len(picture.convert("RGB").getcolors(10**6)) > 1000


def test_a_photo_that_cannot_be_explained_or_drawn_does_not_end_the_others(
    model, photos, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    from experiments.deploy import explanation_images

    explain, draw = explanation_images.explain, explanation_images.draw

    def fail_for_one(network, images, target):
        if 1 in [int(image.mean() * 1e4) == marked for image in images]:
            raise ValueError("its parts do not add up")
        return explain(network, images, target)

    def fail_to_draw(seen, classes):
        if seen[0].photo.sum() == spoilt:
            raise RuntimeError("no glyph")
        return draw(seen, classes)

    loaded, paths, images = as_seen(model, photos)
    marked = int(images[0].mean() * 1e4)
    spoilt = loaded.description.preprocessing.photos_of(images)[1].sum()
    monkeypatch.setattr(explanation_images, "explain", fail_for_one)
    monkeypatch.setattr(explanation_images, "draw", fail_to_draw)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    written(pictures / f"{paths[0].name}.png", b"of an earlier run")
    arguments = ["--output", tmp_path / "rows.csv", "--explain", pictures]
    predict(model, *paths, *arguments, status=1)
    said = capsys.readouterr().err
    assert f"{paths[0]}: cannot be explained (ValueError: its parts do not add up)" in said
    assert f"{paths[1]}: its picture" in said
    assert "no glyph" in said
    assert len(list(pictures.iterdir())) == len(paths) - 2
    assert not any(row["error"] for row in rows(tmp_path / "rows.csv"))


def test_a_row_that_cannot_be_written_does_not_end_the_others(
    model, photos, tmp_path, monkeypatch, capsys
):
    (first, *others), write = find_photos([photos]), CsvWriter._write

    def refuse_the_first(writer, row):
        if row.path == first:
            raise UnicodeEncodeError("cp1252", "name", 0, 1, "no such character")
        write(writer, row)

    monkeypatch.setattr(CsvWriter, "_write", refuse_the_first)
    predict(model, photos, "--output", tmp_path / "rows.csv", status=1)
    assert [row["file"] for row in rows(tmp_path / "rows.csv")] == list(map(str, others))
    assert f"{first}: its row cannot be written" in capsys.readouterr().err


def test_a_full_disk_ends_it_in_one_line(model, photos, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CsvWriter, "_write", full)
    predict(model, photos, "--output", tmp_path / "rows.csv", status=2)
    (line,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert "No space left on device" in line


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_standard_output_on_a_full_disk_ends_it_in_one_line(model, photos):
    command = [sys.executable, "experiments/predict.py", str(model), str(photos), *FAST]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT, text=True, check=False
        )
    assert done.returncode == 2
    assert "error: [Errno 28] No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
def test_rows_that_outgrow_the_disk_end_it_in_one_line_and_the_others_are_kept(
    model, photos, tmp_path
):
    resource = pytest.importorskip("resource")
    output = tmp_path / "rows.csv"
    command = [sys.executable, "experiments/predict.py", str(model), str(photos), *FAST]
    done = subprocess.run(
        [*command, "--output", str(output), "--batch-size", "1"],
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)),
    )
    assert done.returncode == 2, done.stderr
    assert "error: the rows cannot be written any more: [Errno 27] File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(rows(output)) >= 2


def test_whatever_is_wrong_with_a_photo_it_is_a_row(model, photos, tmp_path, monkeypatch):
    from experiments.deploy import inference

    image_size = inference.image_size

    def fail_for_plums(path):
        if path.parent.name == "plum":
            raise SystemError("tile cannot extend outside image")
        return image_size(path)

    monkeypatch.setattr(inference, "image_size", fail_for_plums)
    predict(model, photos, "--output", tmp_path / "rows.csv", status=1)
    for row in rows(tmp_path / "rows.csv"):
        assert ("tile cannot extend" in row["error"]) is (Path(row["file"]).parent.name == "plum")


@pytest.mark.parametrize("option", ["--output", "--explain"])
def test_a_place_that_cannot_be_written_to_is_refused_before_predicting(
    model, photos, tmp_path, monkeypatch, caplog, option
):
    written(tmp_path / "file", b"in the way")
    monkeypatch.setattr(Predictor, "predict", lambda *_: pytest.fail("it predicts"))
    predict(model, photos, option, tmp_path / "file" / "here", status=2)
    (line,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert f"{tmp_path / 'file'} is a file" in line


def test_explain_without_matplotlib_is_refused_before_predicting(
    model, photos, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "experiments.deploy.explanation_images", None)
    monkeypatch.setattr(Predictor, "predict", lambda *_: pytest.fail("it predicts"))
    predict(model, photos, "--explain", tmp_path / "pictures", status=2)
    assert 'pip install "lca-fused[plots]"' in caplog.text


def test_workers_that_the_shared_memory_does_not_hold_are_refused_before_predicting(
    model, photos, tmp_path, monkeypatch, caplog
):
    from experiments.training import shared_memory

    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: usage)
    output = tmp_path / "rows.csv"
    fast = [*FAST[:-1], "2"]
    assert main([str(model), str(photos), "--output", str(output), *fast]) == 2
    assert "2 workers need up to" in caplog.text
    assert not output.exists()


@pytest.mark.slow
def test_explain_shows_the_class_it_is_given(model, photos, tmp_path, monkeypatch):
    """In 16 bits near ties may fall another way than `explain` would decide them."""
    pytest.importorskip("matplotlib")
    from experiments.deploy import explanation_images

    drawn = []
    draw = explanation_images.draw

    def noting(seen, classes):
        drawn.append(int(seen[0].explanation.target[seen[0].index]))
        return draw(seen, classes)

    monkeypatch.setattr(explanation_images, "draw", noting)
    loaded, paths, images = as_seen(model, photos)
    with torch.no_grad():
        unlikely = loaded(images).argmin(dim=1).tolist()
    said = [Prediction((("x", 1.0),), (index,)) for index in unlikely]
    explanation_images.ExplanationImages(loaded, tmp_path).save(paths, images, said)
    assert drawn == unlikely


def test_explained_are_the_classes_of_the_rows(model, photos, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from experiments.deploy.explanation_images import ExplanationImages

    explained = {}

    def noting(_, paths, images, predictions):
        assert len(paths) == len(images)
        explained.update(zip(map(str, paths), predictions, strict=True))
        return {}

    monkeypatch.setattr(ExplanationImages, "save", noting)
    output = tmp_path / "rows.csv"
    written(photos / "lime" / "bad.png", b"")
    arguments = ["--output", output, "--explain", tmp_path / "pictures", "--batch-size", 4]
    predict(model, photos, *arguments, status=1)
    named = {row["file"]: row["class_1"] for row in rows(output) if not row["error"]}
    assert {file: said.name for file, said in explained.items()} == named


def test_explain_shows_the_photo_as_the_network_saw_it(model, photos):
    loaded, paths, images = as_seen(model, photos)
    photo = loaded.description.preprocessing.photos_of(images)[0]
    with Image.open(paths[0]) as original:
        mean = np.asarray(original.convert("RGB")).mean(axis=(0, 1))
    np.testing.assert_allclose(photo.float().mean(dim=(0, 1)), mean, atol=12)


def test_explain_without_lca_is_refused_before_predicting(photos, tmp_path, caplog):
    pytest.importorskip("matplotlib")
    model = write_model(tmp_path / "gap.model", "gap")
    arguments = ["--output", tmp_path / "rows.csv", "--explain", tmp_path / "pictures"]
    predict(model, photos, *arguments, status=2)
    assert "'gap'" in caplog.text
    assert "lca-me" in caplog.text
    assert not (tmp_path / "rows.csv").exists()


UNUSABLE = {
    "--top-k": "0",
    "--batch-size": "0",
    "--max-megapixels": "0",
    "--device": "nonsense",
}


@pytest.mark.parametrize("option", UNUSABLE)
def test_option_that_cannot_be_used_is_named(model, photos, caplog, capsys, option):
    arguments = [str(model), str(photos), "--precision", "float32", option, UNUSABLE[option]]
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(arguments))
    assert ended.value.code == 2
    message = caplog.text + capsys.readouterr().err
    assert option.removeprefix("--") in message
    assert f"is {UNUSABLE[option]}" in message or repr(UNUSABLE[option]) in message


def test_without_photos_it_says_so(model, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(model)])
    assert ended.value.code == 2
    assert "no photos were given" in capsys.readouterr().err


def test_unusable_model_is_named(photos, tmp_path, caplog):
    predict(written(tmp_path / "a.model.pt", b"no"), photos, status=2)
    (line,) = caplog.messages
    assert "a.model.pt" in line
    assert "expected a folder with config.json and model.safetensors" in line


def test_damaged_model_is_refused_in_one_line(model, photos, tmp_path, caplog):
    damaged = shutil.copytree(model, tmp_path / "damaged.model")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    predict(damaged, photos, status=2)
    (line,) = caplog.messages
    assert f"{weights} is damaged" in line
    assert "\n" not in line


def test_unknown_option_ends_with_status_2(model, photos, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(model), str(photos), "--nonsense"])
    assert ended.value.code == 2
    capsys.readouterr()
