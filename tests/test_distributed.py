"""Two processes on the CPU, started by torchrun, against one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.training.device import Compute, DeviceError, resolve_compute
from tests.products import write_photos, write_weights

ROOT = Path(__file__).parent.parent
LIMIT = 240  # seconds until a test gives up on processes that hang
ALONE = (sys.executable,)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
NO_WORKERS = ("--workers", "0")  # each takes seconds to start, and has no part in most tests
STUDY = (str(ROOT / "experiments" / "run_all.py"),)
# The second process fails in the second epoch.
FAILING = """
import os, sys
from experiments import run_all
from experiments.training.steps import Stepper

train = Stepper.epoch
def train_or_fail(stepper, batches, epoch, *rest):
    if epoch == 1 and os.environ["RANK"] == "1":
        raise RuntimeError("made to fail")
    return train(stepper, batches, epoch, *rest)

Stepper.epoch = train_or_fail
sys.exit(run_all.main())
"""

# The second process alone has too little memory, from the second epoch on.
SHORT_OF_MEMORY = """
import os, sys
import torch
from experiments import run_all
from experiments.training.steps import Stepper

train, backward = Stepper.epoch, Stepper.backward
epochs = []
def note_epoch(stepper, batches, epoch, *rest):
    epochs.append(epoch)
    return train(stepper, batches, epoch, *rest)
def run_out(stepper, images, labels, part):
    loss = backward(stepper, images, labels, part)
    if len(images) > 1 and epochs[-1] > 0 and os.environ["RANK"] == "1":
        raise torch.OutOfMemoryError("made to run out")
    return loss

Stepper.epoch, Stepper.backward = note_epoch, run_out
sys.exit(run_all.main())
"""

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no torch.distributed"
)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A study of 45 training photos: its last step of 3 has fewer than 2 processes x 2 parts."""
    folder = tmp_path_factory.mktemp("products")
    photos, weights = write_photos(folder / "photos", train=15), write_weights(folder / "w.pt")
    return [
        *("folder", "--data-root", str(photos), "--methods"),
        *("sift", "gap", "lca", "gap-arcface", "--seeds", "0"),
        *("--backbone", "embedded", "--weights", str(weights), "--workers", "1"),
        *("--device", "cpu", "--precision", "float32", "--recipe.epochs", "3", "--jobs", "1"),
        *("--recipe.image-size", "32", "--recipe.batch-size", "7", "--recipe.accumulate", "2"),
        *("--recipe.balanced", "--recipe.ema-decay", "0.9", "--recipe.patience", "2", "--no-page"),
    ]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environment, timeout=LIMIT, check=False, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def two(arguments, tmp_path_factory):
    """What two processes print, and where they wrote."""
    output = tmp_path_factory.mktemp("two")
    result = run(*TORCHRUN, *STUDY, *arguments, "--output", str(output))
    assert result.returncode == 0, result.stderr
    return result, output


def cells(output: Path) -> dict[str, dict]:
    paths = [path for path in output.rglob("cells/**/*.json") if path.name != "config.json"]
    return {path.name: json.loads(path.read_text()) for path in paths}


def without_cost(text: str) -> str:
    return text[: text.index("Cost of training")]


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_and_the_table_of_one(arguments, two, tmp_path):
    together, output = two
    alone = run(*ALONE, *STUDY, *arguments, "--output", str(tmp_path))
    assert without_cost(together.stdout) == without_cost(alone.stdout)
    assert together.stdout.count("Cost of training") == 1, "the first process alone prints"
    # A bar is drawn at 0 % once; how often after that depends on the machine.
    assert together.stderr.count("lca seed 0:   0%") == alone.stderr.count("lca seed 0:   0%") == 1
    expected, got = cells(tmp_path), cells(output)
    assert set(got) == set(expected)
    for name in expected:
        assert got[name]["top5"] == expected[name]["top5"]
        within = 1e-3 if "arcface" in name else 1e-5  # its scale multiplies what rounding changes
        for ours, its in zip(
            got[name].get("history", []), expected[name].get("history", []), strict=True
        ):
            assert ours == pytest.approx(its, rel=within)


@pytest.mark.slow
def test_an_error_in_one_process_ends_both_is_said_once_and_the_rest_goes_on(
    arguments, two, tmp_path
):
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    output = tmp_path / "runs"
    arguments = [*arguments, *NO_WORKERS, "--output", str(output)]
    failed = run(*TORCHRUN, str(program), *arguments)
    assert failed.returncode != 0
    assert "error: process 1 of 2 failed: RuntimeError: made to fail" in failed.stderr
    assert failed.stderr.count("error: process") == 1
    assert list(output.glob("cells/**/gap-*.checkpoint.pt")), "the finished epoch is kept"
    assert run(*TORCHRUN, *STUDY, *arguments).returncode == 0
    for name, cell in cells(two[1]).items():
        assert cells(output)[name].get("history") == cell.get("history"), "bit for bit"


@pytest.mark.slow
def test_processes_back_off_together_where_one_runs_out_of_memory(arguments, two, tmp_path):
    program, output = tmp_path / "short.py", tmp_path / "runs"
    program.write_text(SHORT_OF_MEMORY)
    alone = [*arguments, *NO_WORKERS, "--methods", "gap", "--output", str(output)]
    result = run(*TORCHRUN, str(program), *alone)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("training takes 1 photos at a time") == 1
    for name, cell in cells(output).items():
        expected = cells(two[1])[name]
        assert [epoch["train_loss"] for epoch in cell["history"]] == pytest.approx(
            [epoch["train_loss"] for epoch in expected["history"]], rel=1e-4
        )


@pytest.mark.slow
def test_a_row_that_fails_in_all_processes_costs_no_other(arguments, tmp_path):
    wild = ["--recipe.backbone-lr", "1e30", "--recipe.head-lr", "1e30", "--output", str(tmp_path)]
    result = run(*TORCHRUN, *STUDY, *arguments, *NO_WORKERS, *wild)
    assert result.returncode == 1
    for row in ("gap", "lca", "gap-arcface"):
        assert f"error: {row} on folder: " in result.stderr
    assert result.stderr.count("lower --recipe.backbone-lr") == 3
    assert [len(cell["top5"]) for cell in cells(tmp_path).values()] == [12], "matching has a result"


@pytest.mark.slow
def test_batch_norm_that_learns_is_refused_on_the_cpu(arguments, tmp_path):
    learning = ["--recipe.no-freeze-batch-norm", "--methods", "gap", "--output", str(tmp_path)]
    result = run(*TORCHRUN, *STUDY, *arguments, *NO_WORKERS, *learning)
    assert "leave --recipe.freeze-batch-norm on" in result.stderr


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs, as far as choosing among them goes; return which one is made the process's own."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    return chosen


def test_one_gpu_cannot_be_named_for_several_processes(gpus):
    with pytest.raises(DeviceError, match=r"cuda:1.*--device cuda.*CUDA_VISIBLE_DEVICES"):
        resolve_compute("cuda:1", "float32")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused_before_anything_is_computed(
    gpus, monkeypatch, device
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(DeviceError, match=r"4 processes.*2 GPU.*--nproc-per-node 2"):
        resolve_compute(device, "float32")
    assert resolve_compute("cpu", "float32").device.type == "cpu"


def test_each_process_takes_the_gpu_of_its_number(gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    second = torch.device("cuda:1")
    assert resolve_compute("auto", "bfloat16") == Compute(second, torch.bfloat16)
    assert gpus == [second]
