"""Cells side by side: the results of one after the other, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from experiments.run_all import main
from experiments.study import jobs
from experiments.study.jobs import number_of_jobs
from experiments.training.device import Compute
from tests.products import write_photos, write_weights

ROOT = Path(__file__).parent.parent
CPU = Compute(torch.device("cpu"), torch.float32)
LIMIT = 240  # seconds until a test gives up


@pytest.fixture
def arguments(tmp_path):
    photos, weights = write_photos(tmp_path / "photos"), write_weights(tmp_path / "weights.pt")
    return [
        *("folder", "--data-root", str(photos), "--backbone", "embedded"),
        *("--weights", str(weights), "--methods", "sift", "gap", "lca", "--seeds", "0"),
        *("--recipe.epochs", "2", "--recipe.image-size", "32", "--recipe.batch-size", "6"),
        *("--precision", "float32", "--device", "cpu", "--output", str(tmp_path / "runs")),
        "--no-page",
    ]


def results(output: Path) -> dict[str, tuple]:
    """What every cell found, by file name."""
    files = [file for file in output.rglob("cells/**/*.json") if file.name != "config.json"]
    found = {file.name: json.loads(file.read_text()) for file in files}
    return {name: (cell["top5"], cell.get("history")) for name, cell in found.items()}


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a study of two jobs that takes long, in a session of its own."""
    command = [sys.executable, str(ROOT / "experiments" / "run_all.py"), *arguments]
    return subprocess.Popen(
        [*command, "--methods", "gap", "lca", "--jobs", "2", "--recipe.epochs", "2000"],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(session: int) -> list[int]:
    """The processes of a session that are not zombies, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.read_text().split(" (", 1)
        except OSError:
            continue
        state, _, _, its_session = rest.rsplit(") ", 1)[1].split()[:4]
        if int(its_session) == session and state != "Z":
            found.append(int(pid))
    return found


def checkpoints(folder: Path) -> int:
    """How many cells have trained an epoch; folders may come and go meanwhile."""
    return sum(".checkpoint." in name for _, _, names in os.walk(folder) for name in names)


def wait_for(what) -> None:
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_two_jobs_give_the_results_and_the_table_of_one(arguments, tmp_path, capfd):
    assert main([*arguments, "--jobs", "1", "--output", str(tmp_path / "one")]) == 0
    alone = capfd.readouterr()
    assert main([*arguments, "--jobs", "2"]) == 0
    together = capfd.readouterr()
    assert results(tmp_path / "runs") == results(tmp_path / "one")
    tables = [said.out[: said.out.index("Cost of training")] for said in (alone, together)]
    assert tables[0] == tables[1]
    assert "cells: 100%" in together.err
    assert "lca seed 0: 100%" in together.err
    assert (tmp_path / "runs" / "augmented" / "folder.png").is_file()


@pytest.mark.slow
def test_a_row_that_fails_costs_no_other(arguments, tmp_path, caplog):
    wild = ["--recipe.backbone-lr", "1e30", "--recipe.head-lr", "1e30"]
    assert main([*arguments, *wild, "--jobs", "2"]) == 1
    assert caplog.text.count("lower --recipe.backbone-lr") == 2
    assert [len(top5) for top5, _ in results(tmp_path / "runs").values()] == [12]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_however_the_first_process_ends_no_other_goes_on(arguments, tmp_path, end):
    process = start(arguments)
    try:
        wait_for(lambda: checkpoints(tmp_path) == 2)
        os.kill(process.pid, end)
        said = process.communicate(timeout=LIMIT)[1]
        wait_for(lambda: not processes(process.pid))
    finally:
        for left in processes(process.pid):
            os.kill(left, signal.SIGKILL)
    if end is signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted: the same command goes on" in said


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_a_job_that_is_killed_ends_the_study_and_says_what_to_do(arguments, tmp_path):
    process = start(arguments)
    try:
        wait_for(lambda: checkpoints(tmp_path) == 2)
        os.kill(max(processes(process.pid)), signal.SIGKILL)
        said = process.communicate(timeout=LIMIT)[1]
    finally:
        for left in processes(process.pid):
            os.kill(left, signal.SIGKILL)
    assert process.returncode == 1
    assert "start the same command again, with fewer --jobs" in said


@pytest.mark.parametrize(
    ("cores", "gibibytes", "cells", "number"),
    [(1, 64, 9, 1), (4, 64, 9, 4), (64, 64, 9, 8), (8, 7, 9, 3), (8, 1, 9, 1), (8, 64, 2, 2)],
)
def test_a_cpu_computes_a_cell_per_core_if_there_are_so_many_and_its_memory_holds_them(
    monkeypatch, cores, gibibytes, cells, number
):
    monkeypatch.setattr(jobs, "cores", lambda: cores)
    monkeypatch.setattr(jobs, "_memory", lambda: gibibytes << 30)
    assert number_of_jobs(None, CPU, cells) == number
    assert number_of_jobs(2, CPU, 9) == 2


def test_gpus_compute_a_cell_each_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name, number in (("cuda", 4), ("cuda:1", 1)):
        assert number_of_jobs(None, Compute(torch.device(name), torch.bfloat16), 9) == number


def test_torchruns_processes_compute_one_cell_at_a_time(monkeypatch):
    monkeypatch.setattr("experiments.training.distributed.size", lambda: 2)
    assert number_of_jobs(None, CPU, 9) == 1
    with pytest.raises(ValueError, match=r"--jobs is 2, but torchrun has started 2 processes"):
        number_of_jobs(2, CPU, 9)
