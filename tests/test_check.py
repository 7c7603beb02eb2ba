"""`check.py`: every fault that is planted in a folder is found, and none is invented."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from experiments.check import main
from experiments.checksum import content_digests
from experiments.data import inspection
from experiments.data.near_copies import NEAR, group_near, perceptual_hash
from experiments.data.photo_check import FEW, TINY
from lca_fused.classifier import Classifier
from lca_fused.description import described
from lca_fused.photos.reading import read_image
from lca_fused.prediction import Prepared
from tests.stored_models import build
from tests.stored_runs import result, settings

CLASSES = ("apple", "lime", "plum")


def draw(seed: int, side: int = 120) -> Image.Image:
    """A photo unlike all of other seeds: soft colours, and boxes on them."""
    rng = np.random.default_rng(seed)
    colours = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    photo = colours.resize((side, side), Image.Resampling.BICUBIC)
    for _ in range(6):
        x, y, width, height = rng.integers(5, side // 2, 4).tolist()
        colour = tuple(rng.integers(0, 256, 3).tolist())
        ImageDraw.Draw(photo).rectangle((x, y, x + width, y + height), fill=colour)
    return photo


def seeds() -> Iterator[int]:
    yield from range(1000)


def write_clean(root: Path) -> Path:
    """Three classes, with `FEW` photos each for training and two for the test."""
    seed = seeds()
    for split, count in (("train", FEW), ("test", 2)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                draw(next(seed)).save(root / split / name / f"{k}.png")
    return root


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def save_anew(source: Path, target: Path) -> None:
    with Image.open(source) as photo:
        photo.resize((80, 80)).save(target, quality=60)


def check(photos: Path, output: Path, *options: str, status: int) -> dict:
    arguments = [str(photos), "--output", str(output), "--workers", "0", *options]
    assert main(arguments) == status
    return json.loads((output / "check.json").read_text())


def found(stored: dict) -> dict[str, list]:
    """What was found, by its kind: lines, or the files of each group."""
    return {
        finding["kind"]: finding["lines"]
        or [[photo["file"] for photo in group] for group in finding["groups"]]
        for finding in stored["findings"]
    }


def test_a_clean_folder_has_no_findings(tmp_path, capsys):
    stored = check(write_clean(tmp_path / "photos"), tmp_path / "out", status=0)
    assert found(stored) == {}
    assert stored["classes"] == {name: {"train": FEW, "test": 2} for name in CLASSES}
    assert stored["formats"] == {"PNG": 3 * (FEW + 2)}
    assert "nothing to look at" in capsys.readouterr().out


def test_every_planted_fault_is_found_and_none_invented(tmp_path):
    root = write_clean(tmp_path / "photos")
    train, test = root / "train", root / "test"
    copy(train / "apple/0.png", train / "apple/again.png")
    copy(train / "apple/1.png", test / "apple/leak.png")
    copy(train / "apple/2.png", train / "lime/misfiled.png")
    save_anew(train / "lime/0.png", train / "lime/anew.jpg")
    save_anew(train / "lime/1.png", test / "lime/anew.jpg")
    save_anew(train / "lime/2.png", train / "plum/anew.jpg")
    (train / "plum/cut.png").write_bytes((train / "plum/0.png").read_bytes()[:-900])
    (train / "plum/empty.jpg").touch()
    draw(500).resize((120, TINY - 1)).save(train / "plum/tiny.png")
    draw(501, side=TINY).save(train / "plum/small.png")
    Image.new("RGB", (120, 120), "teal").save(train / "plum/teal.png")
    (train / "plum/raw.cr2").write_bytes(b"II*\0")
    Image.new("L", (120, 120), 255).save(train / "plum/gone.mask.png")
    draw(502).save(train / "loose.png")
    (root / "unsorted").mkdir()
    packshot = Image.new("RGB", (200, 200), "white")
    packshot.paste(draw(503), (40, 40))
    packshot.save(train / "plum/packshot.png")
    packshot.paste(draw(506), (40, 40))
    packshot.save(test / "plum/packshot.png")
    (train / "nothing").mkdir()
    copy_of = {"once": 504, "untested": 505}
    for name, seed in copy_of.items():
        (train / name).mkdir()
        for k in range(1 if name == "once" else FEW):
            draw(seed + 10 * k).save(train / name / f"{k}.png")
    for name in ("once", "untrained"):
        (test / name).mkdir()
        draw(600 + len(name)).save(test / name / "0.png")

    stored = check(root, tmp_path / "out", status=1)
    kinds = found(stored)
    layout, strays, left_out = (kinds.pop(kind) for kind in ("layout", "strays", "not_read"))
    assert len(layout) == 1
    assert '"nothing"' in layout[0]
    assert [line.split(": ")[1] for line in strays] == [
        "1 photos in no class folder, left out",
        "not a split, left out",
    ]
    assert ["1 CR2" in left_out[0], "gone.mask.png" in left_out[1]] == [True, True]
    assert kinds == {
        "unreadable": [["train/plum/cut.png"], ["train/plum/empty.jpg"]],
        "copies_of_labels": [["train/apple/2.png", "train/lime/misfiled.png"]],
        "copies_of_splits": [["train/apple/1.png", "test/apple/leak.png"]],
        "copies": [["train/apple/0.png", "train/apple/again.png"]],
        "near_of_labels": [["train/lime/2.png", "train/plum/anew.jpg"]],
        "near_of_splits": [["train/lime/1.png", "test/lime/anew.jpg"]],
        "near": [["train/lime/0.png", "train/lime/anew.jpg"]],
        "tiny": [["train/plum/tiny.png"]],
        "plain": [["train/plum/teal.png"]],
        "empty": ["nothing"],
        "few": ["once: 1"],
        "untrained": ["untrained"],
        "untested": ["untested"],
    }
    assert stored["packshots"] == {split: {"their ground": 1} for split in ("train", "test")}
    page = (tmp_path / "out" / "check.html").read_text()
    shown = {
        photo.pop("file"): photo
        for finding in stored["findings"]
        for group in finding["groups"]
        for photo in group
    }
    assert shown["test/apple/leak.png"] == {"split": "test", "class": "apple"}
    assert shown["train/plum/tiny.png"]["remark"] == f"120 x {TINY - 1} pixels"
    assert shown["train/plum/empty.jpg"]["remark"].startswith("zero bytes")
    told = "1 packshots in {}, told by their ground (1){}"
    assert told.format("train", "; training lays them on fresh grounds") in page
    assert told.format("test", "<") in page
    assert page.count("<img ") == 14
    assert page.count("unreadable</span>") == 2
    assert "http" not in page


def test_a_folder_without_splits_and_its_own_output_in_it(tmp_path):
    root = write_clean(tmp_path / "photos") / "train"
    once = check(root, root / "checked", status=0)
    assert once["classes"]["apple"] == {"all": FEW}
    again = check(root, root / "checked", status=0)
    assert again["classes"] == once["classes"], "its output is no class"
    assert "results and pictures of earlier runs" in again["left_out"][0]


@pytest.mark.slow
def test_json_is_the_same_from_threads_and_processes(tmp_path, monkeypatch):
    root = write_clean(tmp_path / "photos")
    save_anew(root / "train/apple/0.png", root / "test/plum/anew.jpg")
    alone = check(root, tmp_path / "out", status=1)
    assert check(root, tmp_path / "out", "--workers", "2", status=1) == alone
    monkeypatch.setattr(inspection, "_FEW", 0)
    assert check(root, tmp_path / "out", "--workers", "1", status=1) == alone


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda _root: None, "no folder"),
        (lambda root: root.mkdir(), "has no folders in it"),
        (lambda root: (root / "test" / "apple").mkdir(parents=True), "no folder train"),
    ],
)
def test_what_is_no_folder_of_photos_is_refused(tmp_path, caplog, prepare, message):
    prepare(tmp_path / "photos")
    assert main([str(tmp_path / "photos"), "--output", str(tmp_path / "out")]) == 2
    assert message in caplog.text
    assert not (tmp_path / "out").exists()


def flipped(value: bytes, *bits: int) -> bytes:
    number = int.from_bytes(value, "big")
    for bit in bits:
        number ^= 1 << bit
    return number.to_bytes(len(value), "big")


def test_near_means_at_most_so_many_bits_apart_and_reaches_over_others():
    middle = np.random.default_rng(0).bytes(32)
    at_the_limit = flipped(middle, *range(NEAR))
    beyond = flipped(middle, *range(100, 100 + NEAR + 1))
    assert group_near([beyond, middle, at_the_limit]) == [[1, 2]]
    other_side = flipped(middle, *range(200, 200 + NEAR))
    assert group_near([at_the_limit, other_side]) == []
    assert group_near([at_the_limit, other_side, middle]) == [[0, 1, 2]]
    assert group_near([middle, beyond, middle]) == [[0, 2]]
    assert group_near([]) == []


def test_pairs_are_found_wherever_they_are_among_many():
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32) for _ in range(1100)]
    pairs = [(0, 1099), (511, 512), (700, 701)]
    for one, other in pairs:
        hashes[other] = flipped(hashes[one], *rng.choice(256, NEAR, replace=False).tolist())
    assert group_near(hashes) == [list(pair) for pair in pairs]


def sure_classifier(photos: list[Image.Image]) -> tuple[Classifier, list[str]]:
    """A classifier that tells photos apart by chance, but surely, and what it takes each for."""
    classifier = build(training={"method": "lca"})
    prepared = Prepared(described(classifier).preprocessing)
    images = torch.stack([prepared(photo) for photo in photos])
    with torch.no_grad():
        last = classifier.classifier
        logits = classifier(images)
        last.bias -= logits.mean(0)
        scale = 30 / logits.std(0)
        last.weight *= scale[:, None]
        last.bias *= scale
        names = [described(classifier).classes[k] for k in classifier(images).argmax(1)]
    return classifier, names


@pytest.mark.slow
def test_wrong_labels_are_found_among_photos_that_were_not_trained_on(tmp_path, capsys):
    drawn = [draw(seed) for seed in range(60)]
    classifier, names = sure_classifier(drawn)
    model = tmp_path / "lca.model"
    classifier.save_pretrained(model)
    root = tmp_path / "photos"
    for k, (photo, name) in enumerate(zip(drawn, names, strict=True)):
        (root / name).mkdir(parents=True, exist_ok=True)
        photo.save(root / name / f"{k:02d}.png")
    of, to, *_ = sorted(root.iterdir(), key=lambda folder: -len(list(folder.iterdir())))
    moved = [photo.rename(to / f"moved-{photo.name}") for photo in sorted(of.iterdir())[:2]]
    files = sorted(root.rglob("*.png"))

    def wrong_labels() -> list:
        stored = check(root, tmp_path / "out", "--model", str(model), "--device", "cpu", status=1)
        return found(stored).get("wrong_labels", [])

    names = [[str(photo.relative_to(root))] for photo in moved]
    assert sorted(wrong_labels()) == names
    assert f"60 of 60 photos are judged by {model}; what it was trained on is not stored" in (
        capsys.readouterr().out
    )
    trained = content_digests([moved[1], *(path for path in files if path not in moved)][:10])
    stored = result([0], [0], settings("lca")) | {"trained_contents": trained}
    model.with_suffix(".json").write_text(json.dumps(stored))
    assert wrong_labels() == names[:1]
    assert f"50 of 60 photos are judged by {model}; the others are among the 10" in (
        capsys.readouterr().out
    )


def test_photos_of_one_class_leave_a_model_nothing_to_doubt(tmp_path, monkeypatch):
    write_clean(tmp_path / "photos")
    build(classes=list(CLASSES)).save_pretrained(tmp_path / "model")
    for name in CLASSES[:-1]:
        shutil.rmtree(tmp_path / "photos" / "test" / name)
    monkeypatch.chdir(tmp_path / "model")
    options = ("--model", ".", "--device", "cpu")
    stored = check(tmp_path / "photos", tmp_path / "out", *options, status=1)
    assert set(found(stored)) == {"untested"}


def test_a_model_of_other_classes_is_refused(tmp_path, caplog):
    build(classes=["a", "b", "c"]).save_pretrained(tmp_path / "model")
    root = write_clean(tmp_path / "photos")
    options = ["--output", str(tmp_path / "out"), "--model", str(tmp_path / "model")]
    assert main([str(root), *options]) == 2
    assert "knows none of the classes" in caplog.text


def saved_anew(photo: Image.Image) -> Iterator[Image.Image]:
    for scale, quality in ((1, 50), (1, 20), (0.5, 75), (0.25, 75)):
        file = io.BytesIO()
        size = round(scale * photo.width), round(scale * photo.height)
        photo.resize(size).save(file, "JPEG", quality=quality)
        yield Image.open(file)


@pytest.mark.data
def test_the_threshold_lies_between_photos_saved_anew_and_other_photos(data_root):
    files = [
        path
        for path in sorted((data_root / "grocery_store" / "dataset").rglob("*.jpg"))
        if "Packages" in path.parts
    ]
    photos = [read_image(path) for path in files[::10]]
    bits = [np.unpackbits(np.frombuffer(perceptual_hash(photo), np.uint8)) for photo in photos]
    for photo, original in zip(photos, bits, strict=True):
        for again in saved_anew(photo):
            anew = np.unpackbits(np.frombuffer(perceptual_hash(again), np.uint8))
            assert (anew != original).sum() <= NEAR / 2
    hashes = [perceptual_hash(read_image(path)) for path in files]
    for group in group_near(hashes):
        assert len({files[index].parent for index in group}) == 1, "of one product in one split"
