"""The command line from end to end, on folders and weights made here."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from experiments.download import DownloadError
from experiments.methods import PAPER_DATASETS, PAPER_ROWS, parse_rows
from experiments.networks import backbones, weights
from experiments.run_all import main
from experiments.study import cells, runner
from experiments.study.options import PRESETS, parse_study
from experiments.training.steps import Stepper
from lca_fused import LCA, load_classifier
from lca_fused import backbones as known_backbones
from lca_fused.heads import HEADS
from tests.products import COLOURS, write_photos, write_weights

FAST = ["--recipe.epochs", "2", "--recipe.image-size", "32", "--recipe.batch-size", "6"]
FAST += ["--workers", "0", "--jobs", "1", "--precision", "float32", "--device", "cpu", "--no-page"]


@pytest.fixture
def arguments(tmp_path):
    weights = write_weights(tmp_path / "weights.pt")
    return [
        "folder",
        *("--data-root", str(write_photos(tmp_path / "photos"))),
        *("--backbone", "embedded", "--weights", str(weights)),
        *("--output", str(tmp_path / "runs"), "--seeds", "0", "1"),
        *FAST,
    ]


def entries(runs: Path, preset: str = "folder", dataset: str = "") -> dict[str, dict]:
    table = json.loads((runs / f"{preset}.json").read_text())
    return {e["method"]: e for e in table["entries"] if dataset in ("", e["dataset"])}


def test_runs_every_method_and_writes_the_table(arguments, tmp_path, capsys, monkeypatch):
    reported = []
    monkeypatch.setattr("experiments.run_all.attempt_report", reported.append)
    assert main([*arguments, "--page"]) == 0
    assert reported == [tmp_path / "runs"]
    rows = entries(tmp_path / "runs")
    assert list(rows) == ["sift", "gap", "gap-fc", "lca", "lca-me"]
    assert [len(row["accuracies"]) for row in rows.values()] == [1, 2, 2, 2, 2]
    assert "| LCA + maximum entropy" in capsys.readouterr().out
    assert "| LCA + maximum entropy" in (tmp_path / "runs" / "folder.md").read_text()
    with Image.open(tmp_path / "runs" / "augmented" / "folder.png") as sheet:
        assert sheet.width > 8 * 32, "eight draws of each photo, 32 pixels a side"
    assert Image.open(tmp_path / "runs" / "folder-ladder.png").width > 300


@pytest.mark.slow
def test_finished_cells_are_not_computed_again(arguments, tmp_path, monkeypatch):
    assert main([*arguments, "--methods", "gap", "lca"]) == 0
    monkeypatch.setattr("experiments.study.cells._finetune", pytest.fail)
    assert main([*arguments, "--methods", "gap", "lca", "--batch-size", "2"]) == 0


@pytest.mark.slow
def test_a_network_that_the_gpu_cannot_hold_costs_its_own_row_alone(
    arguments, tmp_path, monkeypatch, caplog
):
    backward = Stepper.backward

    def short_of_memory(stepper, *part):
        if isinstance(stepper.model.pool, LCA):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
        return backward(stepper, *part)

    monkeypatch.setattr(Stepper, "backward", short_of_memory)
    assert main([*arguments, "--methods", "gap", "lca", "rmac"]) == 1
    rows = entries(tmp_path / "runs")
    assert [len(rows[name]["accuracies"]) for name in ("gap", "lca", "rmac")] == [2, 0, 2]
    assert "Tried to allocate 2 GiB. One photo at a time is tried" in rows["lca"]["not_run"]
    assert "Tried to allocate 2 GiB. One photo at a time is tried" in caplog.text


def test_cell_holds_predictions_and_the_model_that_made_them(arguments, tmp_path):
    main([*arguments, "--methods", "lca", "--seeds", "0"])
    (path,) = (tmp_path / "runs" / "cells").rglob("lca-seed0-*.json")
    cell = json.loads(path.read_text())
    assert cell["classes"] == sorted(COLOURS)
    photos = [tmp_path / "photos" / image for image in cell["images"]]
    assert [cell["classes"].index(photo.parent.name) for photo in photos] == cell["labels"]
    assert all(photo.is_file() for photo in photos)
    assert cell["images_per_second"] > 0
    model = load_classifier(path.with_suffix(".model"))
    assert cell["peak_bytes"] is None, "measured on GPUs only"
    right = [top[0] == label for top, label in zip(cell["top5"], cell["labels"], strict=True)]
    assert model.description.accuracy["test"] == sum(right) / len(right)
    names = [prediction.name for prediction in model.predict(photos)]
    assert names == [cell["classes"][top[0]] for top in cell["top5"]]
    assert not list(path.parent.glob("*.checkpoint.pt")), "a finished cell needs no checkpoint"


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_table(arguments, tmp_path, jobs):
    arguments = [*arguments, "--methods", "lca", "--recipe.epochs", "6"]
    undisturbed = tmp_path / "undisturbed"
    assert main([*arguments, "--output", str(undisturbed)]) == 0

    command = [sys.executable, "-m", "experiments.run_all", *arguments, "--jobs", jobs]
    root = Path(__file__).parent.parent
    runs = tmp_path / "runs"
    resumed = 0
    for _ in range(3):  # each time a little further: kill as soon as new state is on disk
        before = newest(runs)
        process = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
        while process.poll() is None and newest(runs) == before:
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            resumed += 1
        process.wait()
    assert resumed, "the run ended before it could be killed"
    assert subprocess.run(command, cwd=root, check=False).returncode == 0
    assert table_without_times(runs) == table_without_times(undisturbed)


def table_without_times(runs: Path) -> dict:
    table = json.loads((runs / "folder.json").read_text())
    del table["cost"]
    return table


def newest(runs: Path) -> int:
    # Not rglob: it fails where a folder is removed meanwhile.
    files = [Path(folder, name) for folder, _, names in os.walk(runs / "cells") for name in names]
    saved = [path for path in files if path.name.endswith((".checkpoint.pt", ".json"))]
    return max((path.stat().st_mtime_ns for path in saved if path.exists()), default=0)


def test_without_photos_every_cell_says_what_is_missing_and_the_status_is_0(tmp_path, monkeypatch):
    monkeypatch.delenv("LCA_DATA_ROOT", raising=False)
    assert main(["grocery-store", "--output", str(tmp_path)]) == 0
    for row in entries(tmp_path, "grocery-store").values():
        assert "--data-root" in row["not_run"]


def test_whatever_one_row_or_data_set_fails_with_the_others_are_run(
    arguments, tmp_path, monkeypatch, caplog
):
    load, train = runner.load_dataset, cells._finetune

    def load_but_one(name, options):
        if name == "grocery-store/one-shot":
            raise PermissionError(13, "Permission denied", "photos")
        return load(name, options)

    def train_but_one(cell, *rest):
        if cell.method == "gap":
            raise RuntimeError("a driver's bug")
        return train(cell, *rest)

    monkeypatch.setattr(runner, "load_dataset", load_but_one)
    monkeypatch.setattr(cells, "_finetune", train_but_one)
    datasets = ["--datasets", "grocery-store/one-shot", "folder"]
    methods = ["--methods", "gap", "lca", "--seeds", "0"]
    assert main([*arguments, *datasets, *methods]) == 1
    assert "gap on folder: a driver's bug" in caplog.text
    assert "lca on grocery-store/one-shot: [Errno 13] Permission denied" in caplog.text
    table = json.loads((tmp_path / "runs" / "folder.json").read_text())
    done = [(e["method"], e["dataset"]) for e in table["entries"] if e["accuracies"]]
    assert done == [("lca", "folder")]


def test_pictures_and_tables_that_cannot_be_written_cost_no_result(
    arguments, tmp_path, monkeypatch, caplog, capsys
):
    def fail(*_args, **_options):
        raise PermissionError(13, "the file is open in another program")

    for name in (
        "study.runner.save_contact_sheet",
        "report.figures.save_ladder",
        "study.runner.save_text",
    ):
        monkeypatch.setattr(f"experiments.{name}", fail)
    assert main([*arguments, "--methods", "gap", "--seeds", "0"]) == 1
    assert "folder-ladder.png cannot be drawn" in caplog.text
    assert "folder.png cannot be drawn" in caplog.text
    assert "the table cannot be written" in caplog.text
    assert "global average pooling" in capsys.readouterr().out
    assert list((tmp_path / "runs" / "cells").rglob("gap-seed0-*.json"))


@pytest.mark.parametrize("in_the_way", ["runs", "runs/cells", "runs/folder.md/x", "report"])
def test_an_output_that_cannot_be_written_is_refused_at_once(
    arguments, tmp_path, monkeypatch, caplog, in_the_way
):
    monkeypatch.setattr(runner, "load_dataset", pytest.fail)
    file = tmp_path / in_the_way
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    report = ["--report", str(file / "table")] if in_the_way == "report" else []
    assert main([*arguments, *report]) == 2
    (line,) = caplog.messages
    assert "is a f" in line


def test_a_full_disk_ends_the_study_with_what_is_finished(arguments, tmp_path, monkeypatch, caplog):
    assert main([*arguments, "--methods", "gap", "--seeds", "0"]) == 0
    full = SimpleNamespace(free=1)
    monkeypatch.setattr("experiments.outputs.shutil.disk_usage", lambda _: full)
    assert main([*arguments, "--methods", "gap", "lca", "--seeds", "0"]) == 2
    assert "0.00 GiB free" in caplog.messages[-1]
    assert "finished cells are kept" in caplog.messages[-1]


def test_interrupted_it_names_a_command_that_goes_on_in_any_folder(
    arguments, tmp_path, monkeypatch, caplog
):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    place = arguments.index("--data-root")
    relative = [*arguments[: place + 1], "photos", *arguments[place + 2 :], "--seeds", "3"]
    monkeypatch.setattr(cells, "_finetune", interrupt)
    monkeypatch.chdir(tmp_path)
    assert main([*relative, "--methods", "lca"]) == 130
    monkeypatch.chdir("/")
    _, script, *words = shlex.split(caplog.messages[-1])
    assert Path(script).name == "run_all.py"
    assert Path(script).is_absolute()
    preset, study = parse_study(words)
    assert (preset, study.methods, study.seeds) == ("folder", ("lca",), (3,))
    assert study.data_root == tmp_path / "photos"
    assert study.output == tmp_path / "runs"
    assert study.recipe == parse_study(arguments)[1].recipe
    assert study.weights == parse_study(arguments)[1].weights


def test_truncated_photo_is_named_and_can_be_skipped(arguments, tmp_path, caplog):
    photo = tmp_path / "photos" / "train" / "lime" / "3.png"
    photo.write_bytes(photo.read_bytes()[:200])
    arguments += ["--methods", "gap", "--seeds", "0"]
    assert main(arguments) == 1
    assert str(photo) in caplog.text
    caplog.clear()
    assert main([*arguments, "--skip-bad-images"]) == 0
    assert "1 photo" in caplog.text
    assert str(photo) in caplog.text


def test_skipping_all_photos_of_a_product_is_refused(arguments, tmp_path, caplog):
    for photo in (tmp_path / "photos" / "train" / "lime").iterdir():
        photo.write_bytes(b"")
    assert main([*arguments, "--methods", "gap", "--skip-bad-images"]) == 1
    assert "lime" in caplog.text


def test_weights_of_another_network_are_refused_and_matching_still_runs(
    arguments, tmp_path, caplog
):
    weights = tmp_path / "other.pt"
    torch.save(torch.nn.Linear(3, 4).state_dict(), weights)
    assert main([*arguments, "--weights", str(weights), "--methods", "sift", "lca"]) == 1
    assert "2 unexpected (weight, bias)" in caplog.text
    rows = entries(tmp_path / "runs")
    assert len(rows["sift"]["accuracies"]) == 1
    assert "does not hold weights of embedded" in rows["lca"]["not_run"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "said"), [(".json", " is no stored result"), (".checkpoint.pt", " ")]
)
def test_a_damaged_file_is_named_and_the_other_cells_run(arguments, tmp_path, caplog, suffix, said):
    arguments += ["--methods", "gap", "lca", "--seeds", "0"]
    assert main(arguments) == 0
    (result,) = (tmp_path / "runs" / "cells").rglob("gap-*.json")
    result.unlink()
    damaged = result.with_suffix(suffix)
    damaged.write_bytes(b"{")
    assert main(arguments) == 1
    assert f"{damaged}{said}" in caplog.text
    assert len(entries(tmp_path / "runs")["lca"]["accuracies"]) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--weights", "nowhere.pt"], ["nowhere.pt"]),
        (["--data-root", "no-such-folder"], ["no-such-folder"]),
        (["--recipe.image-size", "8"], ["1x1", "--recipe.image-size"]),  # too small a map
    ],
)
def test_what_a_cell_cannot_be_computed_with_is_named(arguments, caplog, options, said):
    assert main([*arguments, "--methods", "lca", *options]) == 1
    assert all(words in caplog.text for words in said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_on_a_machine_without_one_is_refused_at_once(arguments, caplog):
    assert main([*arguments, "--device", "cuda"]) == 2
    assert "--device cpu" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "0", "1", "0"], "--seeds holds 0 more than once"),
        (["--datasets", "folder", "folder"], "--datasets holds folder more than once"),
        (["--methods", "nonsense"], "nonsense"),
        (["--methods", "nonsense"], "lca-me"),
        (["--device", "meta"], "expected auto, cpu, cuda, cuda:N or mps"),
        (["--weights", "resnet50=net.pt"], "no row of this study is made with resnet50"),
        (["--report", "."], "--report is ."),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(arguments, tmp_path, caplog, options, said):
    assert main([*arguments, *options]) == 2
    assert said in caplog.text
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "0", "-1"], "--seeds is 0 -1; expected one or more, each 0 or above"),
        (["--seeds"], "--seeds is empty"),
        (["--workers", "-1"], "--workers is -1; expected 0 or more"),
        (["--jobs", "0"], "--jobs is 0; expected 1 or more"),
        (["--recipe.gamma", "-1"], "recipe.gamma is -1.0; expected 0 or more"),
        (["--recipe.gamma", "nan"], "recipe.gamma is nan; expected 0 or more"),
        (["--recipe.weight-decay", "-1"], "recipe.weight_decay is -1.0; expected 0 or more"),
        (["--recipe.patience", "-1"], "recipe.patience is -1; expected 0 or more"),
    ],
)
def test_options_out_of_their_range_are_refused(arguments, tmp_path, capsys, options, said):
    with pytest.raises(SystemExit) as refused:
        main([*arguments, *options])
    assert refused.value.code == 2
    printed = capsys.readouterr()
    assert said in " ".join((printed.err + printed.out).replace("│", " ").split())
    assert not (tmp_path / "runs").exists()


def test_a_report_keeps_its_whole_name(arguments, tmp_path):
    arguments += ["--methods", "gap", "--seeds", "0", "--stored-only", "--report"]
    for name in ("lca-0.5", "lca-0.6"):
        assert main([*arguments, str(tmp_path / "out" / name)]) == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["lca-0.5.json", "lca-0.5.md", "lca-0.6.json", "lca-0.6.md"]


def test_without_arguments_it_is_the_embedded_default():
    preset, study = parse_study([])
    assert preset == "embedded"
    assert study == PRESETS["embedded"][1]
    assert parse_study(["--seeds", "5"])[1].seeds == (5,)


@pytest.mark.slow
def test_table_of_stored_cells_computes_nothing(arguments, tmp_path, monkeypatch):
    assert main([*arguments, "--methods", "gap", "--seeds", "0"]) == 0
    monkeypatch.setattr("experiments.study.cells._finetune", pytest.fail)
    assert main([*arguments, "--methods", "gap", "lca", "--stored-only"]) == 0
    rows = entries(tmp_path / "runs")
    assert len(rows["gap"]["accuracies"]) == 1
    assert rows["lca"]["not_run"]


@pytest.fixture
def small_paper(tmp_path, monkeypatch):
    """The paper's study with small networks, without a network connection."""
    monkeypatch.delenv("LCA_DATA_ROOT", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "_failed", {})
    monkeypatch.setattr(weights, "fetch", offline)
    for name in ("resnext101-32x8d", "resnext101-32x8d-wsl"):
        monkeypatch.setitem(known_backbones._LONGER_NAMES, name, "lca_fused:small_resnet")
    address = "http://weights.invalid/{}.pth"
    monkeypatch.setattr(backbones, "weights_url", lambda backbone: address.format(backbone.name))
    output = tmp_path / "runs"
    return ["paper", "--output", str(output), "--seeds", "0", *FAST], output


def offline(*_):
    raise DownloadError("no network in this test")


@pytest.fixture
def capg_gp(tmp_path) -> list[str]:
    """What points at a folder with CAPG-GP alone, made small: a training photo a product."""
    write_photos(tmp_path / "data" / "capg-gp", train=1)
    return ["--data-root", str(tmp_path / "data")]


def test_the_papers_table_without_data_or_weights_says_what_is_missing(small_paper, capsys):
    arguments, runs = small_paper
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for dataset, name in PAPER_DATASETS.items():
        assert f"paper, {dataset}" in printed
        rows = entries(runs, "paper", name)
        assert list(rows) == list(PAPER_ROWS)
        assert all(cell["not_run"] for cell in rows.values())
    rows = [line for line in printed.splitlines() if "not run: no photos [" in line]
    assert len(rows) == len(PAPER_ROWS)
    figures = ("44.8", "58.66", "60.4", "70.8", "72.3")
    assert all(any(f"| {figure} " in row for row in rows) for figure in figures)


@pytest.mark.slow
def test_the_papers_table_is_filled_where_data_and_weights_are(
    small_paper, capg_gp, tmp_path, capsys
):
    arguments, runs = small_paper
    wsl = write_weights(tmp_path / "wsl.pth")
    assert main([*arguments, *capg_gp, "--weights", f"resnext101-32x8d-wsl={wsl}"]) == 0
    rows = entries(runs, "paper", "capg-gp")
    done = {name for name, row in rows.items() if row["accuracies"]}
    assert done == {"sift", *(name for name in PAPER_ROWS if name.endswith("-wsl"))}
    assert "superpoint" in rows["superpoint"]["not_run"]
    assert "could not be fetched" in rows["gap@resnext101-32x8d"]["not_run"]
    assert "DM4VM" in entries(runs, "paper", "dm4vm")["sift"]["not_run"]
    assert "grozi.html" in entries(runs, "paper", "grozi-120/in-vitro")["sift"]["not_run"]
    printed = capsys.readouterr().out
    assert "not run: no weights [" in printed
    assert "The maximum-entropy loss" in printed
    assert "points against LCA, resnext101-32x8d-wsl" in printed


def test_an_unreachable_server_is_asked_once_for_each_file(small_paper, capg_gp, monkeypatch):
    arguments, _ = small_paper
    asked = []

    def count(url, *_):
        asked.append(url)
        offline()

    monkeypatch.setattr(weights, "fetch", count)
    assert main([*arguments, *capg_gp, "--methods", *PAPER_ROWS[2:]]) == 0
    assert len(asked) == len(set(asked)) == 2


@pytest.mark.slow
def test_rows_with_backbones_of_their_own_stand_in_one_table(arguments, tmp_path, monkeypatch):
    monkeypatch.setitem(known_backbones._LONGER_NAMES, "other", "lca_fused:small_resnet")
    file = arguments[arguments.index("--weights") + 1]
    both = ["--weights", f"embedded={file}", f"other={file}"]
    assert main([*arguments, *both, "--seeds", "0", "--methods", "gap", "gap@other"]) == 0
    rows = entries(tmp_path / "runs")
    assert rows["gap"]["accuracies"] == rows["gap@other"]["accuracies"], "the same weights"
    assert rows["gap@other"]["title"] == "global average pooling, other"


@pytest.mark.slow
def test_the_default_run_shows_the_papers_table_below_its_own(tmp_path, capsys):
    arguments = ["embedded", "--datasets", "embedded/one-shot", "--methods", "lca"]
    assert main([*arguments, "--stored-only", "--output", str(tmp_path), *FAST]) == 0
    own, _, papers = capsys.readouterr().out.partition("run_all.py paper --data-root DIR")
    assert "not run: not stored" in own
    assert "GroZi-120" in papers
    assert "(paper: ResNeXt-WSL)" in papers
    assert "no photos [" in papers


def test_every_preset_names_rows_and_backbones_that_there_are():
    for _, study in PRESETS.values():
        assert parse_rows(study.methods, study.backbone)
    study = PRESETS["grocery-store"][1]
    rows = parse_rows(study.methods, study.backbone)
    assert set(HEADS) == {row.method.head for row in rows} - {None}
