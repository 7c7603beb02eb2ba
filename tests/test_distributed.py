"""Two processes on the CPU against one: real ones, started by torchrun or by hand."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed

from experiments.training.device import Compute, DeviceError, compute_of_process, resolve_compute
from experiments.training.distributed import ALONE, TeamError, current_team, led_by_first_process
from tests.distributed_run import RECIPES, load_photos, run_study, train_by_name
from tests.products import write_photos

ROOT = Path(__file__).parent.parent
LIMIT = 240  # seconds until a test gives up on processes that hang
EXACT = [name for name in RECIPES if "float16" not in name]

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no torch.distributed"
)


def environment(**variables: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | variables


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("products") / "photos")


def torchrun(photos: Path, output: Path, *names: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-addr", "127.0.0.1", "--master-port", str(free_port())),
        *("-m", "tests.distributed_run", str(photos), str(output), *names),
    ]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        timeout=LIMIT,
        check=False,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def one(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("one")
    decoded = load_photos(photos)
    for name in RECIPES:
        train_by_name(name, decoded, output / name)
    run_study(photos, output / "run_all")
    return output


@pytest.fixture(scope="module")
def two(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("two")
    # "diverging" and the refused one come first: what follows shows that the team outlives them.
    # At last the first process leaves by an exception, as after --help: it dismisses the other.
    names = ("diverging", "BatchNorm learns", *RECIPES, "interrupted", "run_all", "leader leaves")
    result = torchrun(photos, output, *names)
    assert result.returncode == 0, result.stderr
    return output


def history(output: Path, name: str) -> list[dict[str, float]]:
    return json.loads((output / f"{name}.json").read_text())["history"]


def weights(output: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(output / f"{name}.pt", weights_only=True)


@pytest.mark.parametrize("name", EXACT)
def test_two_processes_train_as_one(one, two, name):
    expected, got = history(one, name), history(two, name)
    assert [record["epoch"] for record in got] == [record["epoch"] for record in expected]
    for key in ("train_loss", "validation_loss", "validation_accuracy"):
        assert [r[key] for r in got] == pytest.approx([r[key] for r in expected], rel=1e-5), key
    for key, value in weights(one, name).items():
        torch.testing.assert_close(weights(two, name)[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in EXACT])
def test_two_processes_train_as_one_in_16_bit(one, two, name):
    expected, got = history(one, name), history(two, name)
    losses = [[record["train_loss"] for record in records] for records in (expected, got)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
    assert losses[1] != losses[0], "16 bit rounds differently in other batches"


def test_early_stopping_ends_both_processes(two):
    assert len(history(two, "patient")) == 2


def test_interrupted_run_of_two_ends_bitwise_like_an_uninterrupted_one(two):
    assert history(two, "interrupted") == history(two, "plain")
    for key, value in weights(two, "plain").items():
        assert torch.equal(weights(two, "interrupted")[key], value), key


def test_the_first_process_alone_writes(two):
    written = [json.loads(path.read_text()) for path in two.glob("*.json")]
    assert {result["rank"] for result in written if isinstance(result, dict)} == {0}
    assert not list(two.glob(".*.tmp"))


def test_cells_of_a_study_are_the_same_files_with_the_same_results(one, two):
    cells = [next((output / "run_all").rglob("gap-seed0-*.json")) for output in (one, two)]
    assert cells[0].name == cells[1].name
    expected, got = (json.loads(cell.read_text()) for cell in cells)
    assert got["settings"] == expected["settings"]
    losses = [[record["train_loss"] for record in cell["history"]] for cell in (expected, got)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert got["images_per_second"] > 0


def test_divergence_is_reported_and_the_processes_go_on(two):
    assert "lower --recipe.backbone-lr" in json.loads((two / "diverging.json").read_text())


def test_batch_norm_that_learns_is_refused_on_the_cpu(two):
    message = json.loads((two / "BatchNorm learns.json").read_text())
    assert "freeze-batch-norm" in message


def test_failure_in_one_process_ends_both_and_says_why(photos, tmp_path):
    result = torchrun(photos, tmp_path, "helper fails")
    assert result.returncode != 0
    assert "made to fail in process 1" in result.stderr
    assert not (tmp_path / "helper fails.json").exists()
    assert (tmp_path / "helper fails.checkpoint.pt").exists(), "the finished epoch is kept"


def by_hand(photos: Path, output: Path, *names: str) -> list[subprocess.Popen[str]]:
    """Start two processes that nobody watches over."""
    port = str(free_port())
    command = [sys.executable, "-m", "tests.distributed_run", str(photos), str(output), *names]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(
                RANK=rank,
                LOCAL_RANK=rank,
                WORLD_SIZE="2",
                LOCAL_WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    try:
        outputs = [process.communicate(timeout=LIMIT)[1] for process in processes]
        return [(p.returncode, text) for p, text in zip(processes, outputs, strict=True)]
    finally:
        for process in processes:
            process.kill()


def test_process_that_dies_does_not_leave_the_other_waiting(photos, tmp_path):
    (status, said), (died, _) = ends(by_hand(photos, tmp_path, "helper dies"))
    assert died == 9
    assert status == 1
    assert "process 0 of 2 cannot go on with the others" in said
    assert "start the same command again" in said


def test_first_process_that_fails_ends_the_others_and_alone_shows_progress(photos, tmp_path):
    (status, said), (other_status, other_said) = ends(by_hand(photos, tmp_path, "leader fails"))
    assert status == 1
    assert "RuntimeError: made to fail in process 0" in said
    assert "img/s" in said
    assert other_status != 0
    assert "process 1 of 2 cannot go on with the others" in other_said
    assert "img/s" not in other_said


def test_without_torchrun_a_program_runs_as_it_is():
    @led_by_first_process
    def main(status: int) -> int:
        assert current_team() is ALONE
        return status

    assert main(3) == 3


def test_alone_errors_pass_as_they_are():
    with pytest.raises(KeyError), ALONE.in_step():
        raise KeyError
    assert not ALONE.broken
    assert not issubclass(TeamError, ValueError), "no cell may be given up for it"


def test_one_gpu_cannot_be_named_for_several_processes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(DeviceError, match=r"cuda:1.*--device cuda.*CUDA_VISIBLE_DEVICES"):
        resolve_compute("cuda:1", "float32")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused_before_anything_is_computed(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(DeviceError, match=r"4 processes.*2 GPU.*--nproc-per-node 2"):
        resolve_compute(device, "float32")
    assert resolve_compute("cpu", "float32").device.type == "cpu"


def test_each_process_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    first = Compute(torch.device("cuda"), torch.bfloat16)
    second = compute_of_process(first, 1)
    assert second == Compute(torch.device("cuda:1"), torch.bfloat16)
    with pytest.raises(DeviceError, match="cuda:2"):
        compute_of_process(first, 2)
