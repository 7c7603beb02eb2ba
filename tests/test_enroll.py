"""`enroll.py` from end to end: products join a gallery, leave it, and survive being killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments.deploy.gallery_folder import changing
from experiments.enroll import main
from experiments.predict import main as predict
from lca_fused import load_classifier
from tests.products import COLOURS, write_photos, write_weights
from tests.stored_models import SIDE, build, write_model

ROOT = Path(__file__).parents[1]
NAMES = sorted(COLOURS)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "lca.model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Products of `tests.products`: train/, two photos each, and test/."""
    return write_photos(tmp_path_factory.mktemp("photos"), train=2, test=2)


@pytest.fixture
def gallery(model, photos, tmp_path) -> Path:
    """A gallery of all products, a vector per photo."""
    enroll(tmp_path / "gallery", photos / "train", "--model", model)
    return tmp_path / "gallery"


def enroll(*arguments: object, status: int = 0) -> None:
    options = [] if {"--list", "--remove"} & set(map(str, arguments)) else ["--device", "cpu"]
    assert main([*map(str, arguments), *options]) == status


def only(photos: Path, name: str, folder: Path) -> Path:
    """A folder with the training photos of one product."""
    shutil.copytree(photos / "train" / name, folder / name)
    return folder


def listed(gallery: Path, capsys) -> dict[str, int]:
    capsys.readouterr()
    enroll(gallery, "--list")
    lines = capsys.readouterr().out.splitlines()
    return {name: int(count) for name, count in (line.split("\t") for line in lines)}


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_products_are_enrolled_without_training(gallery, photos, capsys, tmp_path):
    assert listed(gallery, capsys) == dict.fromkeys(NAMES, 2)
    rows = tmp_path / "rows.jsonl"
    options = ["--format", "jsonl", "--output", str(rows), "--device", "cpu", "--workers", "0"]
    assert predict([str(gallery), str(photos / "test"), *options]) == 0
    for row in map(json.loads, rows.read_text().splitlines()):
        assert row["predictions"][0]["class"] == Path(row["file"]).parent.name
    classifier = load_classifier(gallery)
    assert {path.name for path in (gallery / "photos").iterdir()} == set(
        classifier.classifier.photos
    )


def test_a_product_joins_and_leaves_and_the_others_stay(model, photos, tmp_path, capsys):
    gallery = tmp_path / "gallery"
    enroll(gallery, only(photos, NAMES[0], tmp_path / "first"), "--model", model)
    before = load_classifier(gallery).classifier
    second = only(photos, NAMES[1], tmp_path / "second")
    (second / NAMES[1]).rename(second / "cafe\u0301")  # decomposed, as macOS may write it
    enroll(gallery, second, "--per-product", "mean", "--model", model)
    assert listed(gallery, capsys) == {NAMES[0]: 2, "caf\xe9": 1}
    enroll(gallery, second)
    assert listed(gallery, capsys) == {NAMES[0]: 2, "caf\xe9": 2}, "enrolled again: replaced"
    enroll(gallery, "--remove", "cafe\u0301")
    after = load_classifier(gallery).classifier
    assert after.names == before.names
    assert torch.equal(after.embeddings, before.embeddings)
    assert len(list((gallery / "photos").iterdir())) == 2


def test_the_mean_stands_for_all_photos_of_a_product(gallery, model, photos, tmp_path):
    enroll(tmp_path / "mean", photos / "train", "--model", model, "--per-product", "mean")
    every, mean = load_classifier(gallery).classifier, load_classifier(tmp_path / "mean").classifier
    for index in range(len(NAMES)):
        vector = every.embeddings[every.products == index].mean(0)
        torch.testing.assert_close(mean.embeddings[index], vector / vector.norm())
    assert set(mean.photos) <= set(every.photos)


def test_a_photo_is_explained_beside_the_enrolled_one(gallery, photos, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from experiments.deploy import explanation_images

    drawn, draw = [], explanation_images.draw
    monkeypatch.setattr(
        explanation_images, "draw", lambda seen, names: drawn.append(seen) or draw(seen, names)
    )
    photo = next((photos / "test").rglob("*.png"))
    options = ["--explain", str(tmp_path / "pictures"), "--device", "cpu", "--precision", "float32"]
    assert predict([str(gallery), str(photo), *options]) == 0
    ((seen, enrolled),) = drawn
    assert len(list((tmp_path / "pictures").iterdir())) == 1
    assert photo.parent.name in enrolled.title
    cosine = float(seen.explanation.target_logits[0])
    assert seen.explanation.positions.sum() == pytest.approx(cosine, rel=1e-4)
    assert enrolled.explanation.positions.sum() == pytest.approx(cosine, rel=2e-2), "but for JPEG"
    assert len(enrolled.explanation.top_rectangles(0, 3)) > 0


@pytest.mark.slow
def test_a_gallery_is_exported_as_any_classifier(gallery, tmp_path):
    pytest.importorskip("onnxruntime")
    from experiments.export import main as export

    assert export([str(gallery), "--output", str(tmp_path / "shipped"), "--formats", "onnx"]) == 0
    assert (tmp_path / "shipped" / "model.onnx").exists()


def test_packshots_are_cut_out_and_embedded_on_grounds(model, tmp_path, caplog):
    caplog.set_level("INFO")
    vectors = {}
    for how, said in (("auto", 1), ("never", 0)):
        photos = tmp_path / how
        for name in ("packshot", "pack"):
            (photos / name).mkdir(parents=True)
            pack = Image.new("RGB", (40, 40), "white" if name == "packshot" else "gold")
            pack.paste((30, 90, 200), (12, 8, 28, 32))
            if name == "pack":  # no plain ground: stripes up to its border
                pack.paste((200, 0, 90), (0, 0, 40, 20))
            pack.save(photos / name / "0.png")
        gallery = tmp_path / f"{how} gallery"
        caplog.clear()
        enroll(gallery, photos, "--model", model, "--cut-out", how)
        assert caplog.text.count("1 packshots are cut out and embedded on 8 grounds") == said
        found = load_classifier(gallery).classifier
        order = [found.names.index(name) for name in ("packshot", "pack")]
        vectors[how] = found.embeddings[order]
    cosines = (vectors["auto"] * vectors["never"]).sum(1)
    assert cosines[0] < 0.999
    assert cosines[1] == pytest.approx(1)


def test_a_merely_pretrained_backbone_serves(photos, tmp_path, capsys):
    weights = write_weights(tmp_path / "weights.pt")
    options = ["--backbone", "embedded", "--weights", weights, "--image-size", SIDE]
    options += ["--out-features", 8]
    for head in ("lca", "gap"):
        enroll(tmp_path / head, photos / "train", *options, "--head", head)
        enroll(tmp_path / head, photos / "train", *options, "--head", head)
        assert listed(tmp_path / head, capsys) == dict.fromkeys(NAMES, 2)
    enroll(tmp_path / "gap", photos / "train", *options, "--head", "rmac", status=2)


def test_a_photo_that_cannot_be_read_is_named_and_the_others_are_enrolled(
    gallery, photos, tmp_path, capsys
):
    more = only(photos, NAMES[0], tmp_path / "more")
    shutil.copytree(more / NAMES[0], more / "milk")
    (more / "milk" / "broken.jpg").write_bytes(b"<html>404</html>")
    shutil.copy(more / "milk" / "0.png", more / "milk" / "masked.png")
    Image.new("L", (9, 9), 255).save(more / "milk" / "masked.mask.png")
    (more / "juice").mkdir()
    (more / "juice" / "empty.jpg").touch()
    enroll(gallery, more, status=1)
    error = capsys.readouterr().err
    assert "broken.jpg: not an image" in error
    assert "empty.jpg: zero bytes" in error
    assert "masked.png: the mask" in error
    assert listed(gallery, capsys) == {**dict.fromkeys(NAMES, 2), "milk": 2}


def test_a_photo_like_another_products_is_warned_of(gallery, photos, tmp_path, caplog):
    more = only(photos, NAMES[0], tmp_path / "more")
    (more / NAMES[0]).rename(more / "milk")
    enroll(gallery, more)
    assert f"nearly as like {NAMES[0]} (cosine 1.000) as like milk" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{gallery} nowhere", "PHOTOS nowhere is not there; expected a folder"),
        ("{gallery} {empty}", "has folders without photos"),
        ("{gallery} {photos}/train/apple", "has no folders of photos (2 photos lie"),
        ("{gallery} {photos}", "is a data set with the folders test, train"),
        ("{new} {photos}/train", "say which network is to embed"),
        ("{model} {photos}/train", "a trained classifier and no gallery"),
        ("{new} {photos}/train --model {new}", "there is no"),
        ("{gallery} {photos}/train --scale 9", "--scale is 9, and that of"),
        ("{gallery} --remove milk", "the gallery has no 'milk'; it has 'apple'"),
        ("{gallery} --remove apple lime plum", "nothing would be left"),
        ("{new} --list", "there is no"),
        ("{new} --remove apple", "there is no"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(
    gallery, model, photos, tmp_path, caplog, words, message
):
    new, empty = tmp_path / "new", tmp_path / "empty"
    (empty / "cola").mkdir(parents=True)
    before = everything(tmp_path)
    caplog.clear()
    enroll(*words.format(**locals()).split(), status=2)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert message in said
    assert "\n" not in said
    assert everything(tmp_path) == before
    assert not new.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either PHOTOS"),
        (["PHOTOS", "--list"], "either PHOTOS"),
        (["PHOTOS", "--model", "a", "--backbone", "b"], "leave one of them"),
        (["PHOTOS", "--weights", "a"], "which is not given"),
        (["PHOTOS", "--model", "a", "--head", "gap", "--image-size", "9"], "--head, --image-size:"),
        (["PHOTOS", "--model", "a", "--scale", "0"], "--scale is 0; expected"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(["GALLERY", *options])
    assert error.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_vectors_of_another_network_are_not_added(gallery, photos, tmp_path, caplog):
    build(seed=1).save_pretrained(tmp_path / "other")
    enroll(gallery, photos / "train", "--model", tmp_path / "other", status=2)
    assert "is a gallery of another model" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_at_a_time_are_refused(gallery, photos, caplog):
    with changing(gallery):
        enroll(gallery, photos / "train", status=2)
    assert "another process is changing" in caplog.text


KILLED = """
import os, random, signal, sys, threading, time
from tqdm import tqdm
from experiments.enroll import main
from lca_fused import load_classifier
gallery, photos, kills, (first, second) = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
tqdm.set_lock(threading.RLock())  # its own is shared by forks, and a killed one keeps it
main([gallery, photos, "--device", "cpu"])
expected = {}
for state in ((first, second), (first,)):
    loaded = load_classifier(gallery).classifier
    expected[loaded.names] = loaded.embeddings
    main([gallery, "--remove", second])
draw = random.Random(0)
seen = set()
for kill in range(10 * kills):
    if kill >= kills and len(seen) == 2:
        break
    child = os.fork()
    if not child:
        while True:
            main([gallery, photos, "--device", "cpu"])
            main([gallery, "--remove", second])
    time.sleep(draw.uniform(0, 0.3) * (1 + kill // kills))  # a busy machine gets further later
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    loaded = load_classifier(gallery).classifier
    assert (loaded.embeddings - expected[loaded.names]).abs().max() < 1e-5
    seen.add(loaded.names)
assert main([gallery, photos, "--device", "cpu"]) == 0
print(len(seen))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_gallery_survives_being_killed(model, photos, tmp_path):
    gallery, both = tmp_path / "gallery", only(photos, NAMES[0], tmp_path / "both")
    only(photos, NAMES[1], both)
    enroll(gallery, both, "--model", model)
    kills = os.environ.get("LCA_KILLS", "8")
    command = [sys.executable, "-c", KILLED, str(gallery), str(both), kills, *NAMES[:2]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "2", "both states were seen"
    classifier = load_classifier(gallery)
    assert len(list(gallery.glob("vectors-*"))) == 1
    assert not list(gallery.rglob(".*.tmp"))
    assert {path.name for path in (gallery / "photos").iterdir()} == set(
        classifier.classifier.photos
    )
