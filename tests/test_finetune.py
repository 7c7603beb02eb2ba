"""Finetuning on one's own photos from end to end, on folders and weights made here."""

import csv
import errno
import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.download import DownloadError
from experiments.finetune import load_own_photos, main
from experiments.predict import main as predict
from experiments.significance import wilson_interval
from experiments.study.finetuning import EMBEDDED, Finetuning, parse_finetuning
from experiments.training.trainer import Trainer
from lca_fused import Classifier, load_classifier, pretrained
from lca_fused.prediction import Prepared
from tests.products import COLOURS, write_photos, write_weights

FAST = ["--recipe.epochs", "2", "--recipe.image-size", "32", "--recipe.batch-size", "6"]
FAST += ["--workers", "0", "--precision", "float32", "--device", "cpu"]


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "my photos")


@pytest.fixture
def unsplit(tmp_path, photos):
    """A folder a product, with as many photos as given by name."""

    def write(**counts):
        root = tmp_path / "unsplit"
        for product, count in counts.items():
            (root / product).mkdir(parents=True)
            for k in range(count):
                source = photos / "train" / product / f"{k % 6}.png"
                # What follows a PNG's end is not read, and makes no two files the same.
                (root / product / f"{k}.png").write_bytes(source.read_bytes() + bytes([k]))
        return root

    return write


@pytest.fixture
def options(tmp_path):
    weights = write_weights(tmp_path / "weights.pt")
    output = ["--output", str(tmp_path / "runs" / "mine")]
    return [*output, "--backbone", "embedded", "--weights", str(weights), *FAST]


@pytest.fixture
def run(tmp_path):
    return tmp_path / "runs" / "mine"


@pytest.fixture
def without_report(monkeypatch):
    """Drawing it takes longer than such a short training."""
    monkeypatch.setattr("experiments.finetune.attempt_report", lambda _output: None)


def cells(run):
    return [json.loads(path.read_text()) for path in (run / "cells").rglob("*-seed*.json")]


def test_it_leaves_a_model_a_report_and_the_commands_to_go_on_with(photos, options, run, capsys):
    assert main([str(photos), *options]) == 0
    (cell,) = cells(run)
    assert (run / "augmented" / "finetune.png").exists()
    printed = capsys.readouterr().out
    (model,) = (run / "cells").rglob("*.model")
    assert load_classifier(model).description.classes == tuple(sorted(COLOURS))
    right = sum(top[0] == label for top, label in zip(cell["top5"], cell["labels"], strict=True))
    low, high = wilson_interval(right, 12)
    interval = f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    assert f"{100 * right / 12:.1f} % of 12 test photos recognised ({interval})" in printed
    predict, export = (line for line in printed.splitlines() if line.startswith("  "))
    scripts = Path(__file__).parents[1] / "experiments"
    python, *words = shlex.split(predict)
    assert python == sys.executable
    assert words == [str(scripts / "predict.py"), str(model), "PHOTOS..."]
    assert shlex.split(export)[1:3] == [str(scripts / "export.py"), str(model)]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert interval in page
    assert "Finetuning on my photos" in page
    assert page.count("<img") > 5
    assert cell["settings"]["recipe"]["patience"] > 0, "it stops early unless told not to"
    assert "No photos are shown" not in page
    assert "No predictions are explained" not in page


# As in an environment that has lca-fused[models] and nothing else of this project.
WITH_THE_LIBRARY_ALONE = """
import json, sys

for name in ("experiments benchmarks reference tests cv2 jinja2 matplotlib numba onnx onnxruntime "
             "onnxscript scipy tabulate tyro").split():
    sys.modules[name] = None
import torch
from lca_fused import load_classifier
from lca_fused.prediction import Prepared

model, *photos = sys.argv[1:]
classifier = load_classifier(model)
prepared = Prepared(classifier.description.preprocessing)
with torch.inference_mode():
    logits = classifier(torch.stack([prepared(photo) for photo in photos]))
named = [prediction.top[0] for prediction in classifier.predict(photos)]
print(json.dumps({"logits": logits.tolist(), "named": named}))
"""


@pytest.mark.slow
def test_what_it_trains_is_a_model_of_the_library(
    photos, options, run, tmp_path, monkeypatch, without_report
):
    trained, save_pretrained = [], Classifier.save_pretrained

    def noting(classifier, folder):
        trained.append(classifier)
        save_pretrained(classifier, folder)

    monkeypatch.setattr(Classifier, "save_pretrained", noting)
    assert main([str(photos), *options]) == 0
    (cell,), (model,) = cells(run), (run / "cells").rglob("*.model")
    tested = [photos / image for image in cell["images"]]
    command = [sys.executable, "-c", WITH_THE_LIBRARY_ALONE, str(model), *map(str, tested)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout)

    (classifier,) = trained
    prepared = Prepared(classifier.description.preprocessing)
    with torch.inference_mode():
        expected = classifier.eval()(torch.stack([prepared(path) for path in tested]))
    torch.testing.assert_close(torch.tensor(alone["logits"]), expected, rtol=1e-6, atol=1e-6)

    rows = tmp_path / "rows.csv"
    fast = ["--workers", "0", "--precision", "float32", "--device", "cpu"]
    assert predict([str(model), *map(str, tested), "--output", str(rows), *fast]) == 0
    with rows.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == [str(path) for path in tested]
    assert [name for name, _ in alone["named"]] == [row["class_1"] for row in table]
    assert [p for _, p in alone["named"]] == pytest.approx(
        [float(row["probability_1"]) for row in table], abs=2e-6
    )
    assert [row["class_1"] for row in table] == [cell["classes"][top[0]] for top in cell["top5"]]
    description = load_classifier(model).description
    right = sum(top[0] == label for top, label in zip(cell["top5"], cell["labels"], strict=True))
    assert description.accuracy == {"test": right / 12, "test_photos": 12}
    assert description.training == cell["settings"]
    assert description.preprocessing.image_size == 32
    assert {path.name for path in model.iterdir()} == {"config.json", "model.safetensors"}
    assert set(np.ptp(expected.numpy(), axis=1) > 1e-3) == {True}, "or any model would do"


@pytest.mark.slow
def test_run_again_it_computes_nothing_and_writes_the_report(photos, options, run, monkeypatch):
    assert main([str(photos), *options]) == 0
    (run / "report.html").unlink()
    monkeypatch.setattr("experiments.study.cells._finetune", pytest.fail)
    assert main([str(photos), *options]) == 0
    assert (run / "report.html").exists()


@pytest.mark.slow
def test_interrupted_it_goes_on_where_it_was(
    photos, options, run, monkeypatch, caplog, tmp_path, without_report
):
    undisturbed = [*options, "--output", str(tmp_path / "undisturbed")]
    assert main([str(photos), *undisturbed]) == 0
    trained = []
    train_epoch = Trainer._train_epoch

    def interrupt_the_second(trainer, *arguments):
        trained.append(trainer.progress.epoch)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train_epoch(trainer, *arguments)

    monkeypatch.setattr(Trainer, "_train_epoch", interrupt_the_second)
    assert main([str(photos), *options]) == 130
    assert "the same command goes on" in caplog.text
    assert not cells(run)
    assert main([str(photos), *options]) == 0
    assert trained == [0, 1, 1], "the first epoch is not trained again"
    (expected,), (found,) = cells(tmp_path / "undisturbed"), cells(run)
    for name in ("top5", "best_epoch", "history"):
        assert found[name] == expected[name]


# Uneven classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((30, 6, 6), "3 classes, 4 to 22 a class: every class is drawn equally often"),
        ((6, 6, 1), "1 classes have no test photo, so the test says nothing about them: plum"),
    ],
)
def test_uneven_classes_are_told_and_balanced(unsplit, options, run, caplog, counts, said):
    root = unsplit(**dict(zip(("apple", "lime", "plum"), counts, strict=True)))
    with caplog.at_level("INFO"):
        assert main([str(root), *options, "--recipe.epochs", "1"]) == 0
    (cell,) = cells(run)
    assert cell["settings"]["recipe"]["balanced"] is (counts[0] == 30)
    assert said in caplog.text
    assert said in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("balance", "imbalance", "expected"),
    [
        ("auto", 4.0, False),
        ("auto", 4.1, True),
        ("on", 1.0, True),
        ("off", 100.0, False),
    ],
)
def test_when_classes_are_balanced(balance, imbalance, expected):
    assert Finetuning(balance=balance).balanced(imbalance) is expected


def test_split_depends_on_its_seed(unsplit):
    root = unsplit(apple=20, lime=20)
    one, same, other = (
        load_own_photos(root, Finetuning(root, split_seed=seed)).test for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


# What is among the photos


@pytest.mark.slow
def test_copies_and_what_is_left_out_are_in_the_log_once_and_in_the_report(
    photos, options, run, caplog
):
    train, test = photos / "train", photos / "test"
    (test / "lime" / "copy.png").write_bytes((train / "lime" / "0.png").read_bytes())
    (train / "plum" / "wrong.png").write_bytes((train / "apple" / "1.png").read_bytes())
    (train / "lime" / "1.HEIC").touch()
    (train / "lime" / ".DS_Store").touch()
    with caplog.at_level("INFO"):
        assert main([str(photos), *options, "--recipe.epochs", "1"]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    for said in (
        "1 photos, identical copies, are in two splits",
        "test/lime/copy.png",
        "1 photos, identical copies, are under two labels",
        "train/plum/wrong.png",
        "1 photos of a format that is not read, left out: 1 HEIC",
        "1 hidden, system, thumbnail or backup files",
    ):
        assert caplog.text.count(said) == 1
        assert said in page


@pytest.mark.parametrize("where", ["runs", "runs/mine", "."])
def test_results_among_the_photos_are_no_class_the_next_time(
    unsplit, options, where, monkeypatch, without_report
):
    root = unsplit(apple=6, lime=6)
    arguments = [str(root), *options, "--recipe.epochs", "1", "--output", str(root / where)]
    assert main(arguments) == 0
    stored = cells(root / where)
    monkeypatch.setattr("experiments.study.cells._finetune", pytest.fail)
    assert main(arguments) == 0
    assert cells(root / where) == stored


# What cannot be used


def test_unreadable_photos_are_listed_and_can_be_skipped(photos, options, caplog, without_report):
    bad = photos / "train" / "lime" / "3.png"
    bad.write_bytes(b"no image")
    assert main([str(photos), *options]) == 1
    assert str(bad) in caplog.text
    assert "--skip-bad-images" in caplog.text
    caplog.clear()
    assert main([str(photos), *options, "--skip-bad-images"]) == 0
    assert str(bad) in caplog.text


def test_missing_folder_is_named(tmp_path, options, caplog):
    assert main([str(tmp_path / "nowhere"), *options]) == 1
    assert "nowhere" in caplog.text


def test_weights_that_cannot_be_fetched_say_what_to_do(photos, tmp_path, caplog, monkeypatch):
    def unreachable(*_):
        raise DownloadError("network is unreachable")

    monkeypatch.setattr("experiments.networks.weights.fetch", unreachable)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "cache"))
    assert main([str(photos), "--output", str(tmp_path / "runs"), *FAST]) == 1
    assert "network is unreachable" in caplog.text
    assert "--weights" in caplog.text


def test_without_jinja_the_model_is_there_all_the_same(photos, options, run, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for module in ("experiments.report.page", "experiments.report.templates"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert main([str(photos), *options]) == 0
    assert "no report" in caplog.messages[0], "it is said before anything is trained"
    assert "jinja2" in caplog.messages[0]
    assert list((run / "cells").rglob("*.model"))


# Output that cannot be written


@pytest.mark.parametrize("in_the_way", ["", "cells", "report.html/x"])
def test_an_output_that_cannot_be_written_is_refused_before_photos_are_read(
    photos, options, run, caplog, monkeypatch, in_the_way
):
    monkeypatch.setattr("experiments.finetune.load_own_photos", pytest.fail)
    file = run / in_the_way
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert main([str(photos), *options]) == 2
    (line,) = caplog.messages
    assert line.startswith("error: --output")
    assert "is a f" in line, "a file that is no folder, or a folder that is no file"
    assert file.read_bytes() == b""


def test_a_disk_without_room_for_checkpoints_is_found_before_training(
    photos, options, run, caplog, monkeypatch
):
    monkeypatch.setattr(
        "experiments.outputs.shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000)
    )
    monkeypatch.setattr(Trainer, "fit", pytest.fail)
    assert main([str(photos), *options]) == 2
    assert "0.00 GiB free, and model and checkpoints may take" in caplog.messages[-1]


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_no_finished_epoch(
    photos, options, run, caplog, monkeypatch, without_report
):
    save, saved = torch.save, []

    def fill_up(state, file, **settings):
        saved.append(state.get("progress", {}).get("epoch"))
        if len(saved) == 2:
            file.write(b"half of it")
            raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")
        save(state, file, **settings)

    monkeypatch.setattr(torch, "save", fill_up)
    assert main([str(photos), *options]) == 2
    assert "file write failed" in caplog.messages[-1]
    (checkpoint,) = (run / "cells").rglob("*.*")
    assert checkpoint.name.endswith(".checkpoint.pt")
    assert main([str(photos), *options]) == 0
    assert saved == [1, 2, 2], "the first epoch is not trained again"


def test_a_worker_that_is_killed_is_one_line(photos, options, caplog, monkeypatch):
    def killed(*_):
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")

    monkeypatch.setattr(Trainer, "fit", killed)
    assert main([str(photos), *options]) == 2
    assert "a process that loads photos was killed" in caplog.messages[-1]
    assert "goes on after the last finished epoch" in caplog.messages[-1]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_disk_that_fills_up_as_the_model_is_stored_costs_no_epoch(
    photos, options, run, caplog, monkeypatch, without_report, file
):
    def fill_up(path, content):
        if path.name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        replace(path, content)

    replace = pretrained._replace
    monkeypatch.setattr(pretrained, "_replace", fill_up)
    assert main([str(photos), *options]) == 2
    assert "No space left on device" in caplog.messages[-1]
    assert not cells(run), "a result without its model would never be computed again"
    monkeypatch.setattr(pretrained, "_replace", replace)
    monkeypatch.setattr(Trainer, "_train_epoch", pytest.fail)
    assert main([str(photos), *options]) == 0
    (model,) = (run / "cells").rglob("*.model")
    assert load_classifier(model).num_classes == len(COLOURS)


def test_shared_memory_that_does_not_hold_the_workers_batches_is_found_before_training(
    photos, options, caplog, monkeypatch
):
    monkeypatch.setattr("experiments.finetune.load_own_photos", pytest.fail)
    usage = "experiments.training.shared_memory.shutil.disk_usage"
    monkeypatch.setattr(usage, lambda _: SimpleNamespace(free=300_000))
    assert main([str(photos), *options, "--workers", "2"]) == 2
    (line,) = caplog.messages
    assert "0.3 MB free, and 2 workers need up to 0.4 MB" in line
    assert "use --workers 1" in line


def test_a_report_that_fails_costs_neither_model_nor_message(
    photos, options, run, caplog, capsys, monkeypatch
):
    def fail(_folder):
        raise KeyError("a section")

    monkeypatch.setattr(importlib.import_module("experiments.report.page"), "write_report", fail)
    assert main([str(photos), *options]) == 1
    assert "no report" in caplog.text
    assert "model: " in capsys.readouterr().out


# Names and places


@pytest.mark.slow
def test_names_that_are_no_text_and_a_console_that_shows_none(photos, options, run, tmp_path):
    """As old archives and Windows' redirected output have it."""
    folder = photos.rename(tmp_path / "Фото")
    name = os.fsencode(folder / "test" / "apple") + b"/caf\xe9.png"
    try:
        os.rename(folder / "test" / "apple" / "0.png", name)
        os.rename(folder / "train" / "lime", os.fsencode(folder / "train") + b"/lim\xe9")
        os.rename(folder / "test" / "lime", os.fsencode(folder / "test") + b"/lim\xe9")
    except OSError:
        pytest.skip("this file system takes text alone")
    command = [sys.executable, "-m", "experiments.finetune", str(folder), *options]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"model: " in done.stdout
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "lim\\xe9" in page
    assert "No photos are shown" not in page
    assert "No predictions are explained" not in page
    (model,) = (run / "cells").rglob("*.model")
    assert "lim\\xe9" in load_classifier(model).description.classes


@pytest.mark.slow
def test_printed_commands_work_in_any_folder(
    photos, options, tmp_path, monkeypatch, capsys, without_report
):
    monkeypatch.chdir(photos.parent)
    place = options.index("--weights")
    relative = [*options[2:place], "--weights", "weights.pt", *options[place + 2 :]]
    arguments = [photos.name, "--output", "the runs", *relative, "--recipe.epochs", "1"]
    assert main(arguments) == 0
    predict = capsys.readouterr().out.splitlines()[-2]
    (cell,) = cells(Path("the runs"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    _, script, *words = shlex.split(cell["command"])
    assert Path(script).samefile(Path(__file__).parents[1] / "experiments" / "finetune.py")
    again, first = parse_finetuning(words), parse_finetuning(arguments)
    assert again.recipe == first.recipe
    assert again.photos == photos
    assert again.weights == photos.parent / "weights.pt"
    assert again.output == photos.parent / "the runs"
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command = predict.replace("PHOTOS...", shlex.quote(str(photos / "test")))
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") == 13


# The command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no photos"),
        (["PHOTOS", "--embedded"], "both PHOTOS and --embedded"),
        (["PHOTOS", "--method", "sift"], "lca-me"),
        (["PHOTOS", "--backbone", "nonsense"], "mobilenet-v2"),
        (["PHOTOS", "--seed", "-1"], "0 or more"),
        (["PHOTOS", "--workers", "-1"], "--workers is -1; expected 0 or more"),
        (["PHOTOS", "--device", "cuda:99"], "--device cpu"),
    ],
)
def test_unusable_command_lines_are_refused_with_status_2(arguments, said, caplog, capsys):
    try:
        status = main(arguments)
    except SystemExit as refused:
        status = refused.code
    assert status == 2
    everything = capsys.readouterr()
    assert said in " ".join((caplog.text + everything.err + everything.out).split())


def test_embedded_has_its_own_defaults_which_options_change():
    assert parse_finetuning(["--embedded"]) == EMBEDDED
    changed = parse_finetuning(["--embedded", "--method", "gap", "--recipe.epochs", "3"])
    assert (changed.method, changed.recipe.epochs) == ("gap", 3)
    assert changed.recipe.image_size == EMBEDDED.recipe.image_size
    assert parse_finetuning(["PHOTOS"]).recipe.patience > 0


@pytest.mark.slow
def test_embedded_trains_on_generated_products(options, run, monkeypatch, photos):
    monkeypatch.setattr("experiments.finetune.write_scenario", lambda *_args, **_options: photos)
    assert main(["--embedded", *options]) == 0
    assert "--embedded" in cells(run)[0]["command"]
    assert (run / "report.html").exists()
