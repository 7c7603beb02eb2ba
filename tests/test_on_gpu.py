"""What is run on a machine with a GPU, as far as that can be tested on one without."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks import on_gpu
from benchmarks.on_gpu import STEPS, Step, run

SLEEP = ("timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)")


def test_steps_go_on_after_one_that_fails_and_one_that_takes_too_long(tmp_path):
    steps = [
        Step("wrong", ("no_such_module",), 60),
        Step("long", SLEEP, 3),  # seconds enough for Python to start
        Step("right", ("platform",), 60),
    ]
    ended = {step.name: status for step, status in run(steps, tmp_path, seconds=600)}
    assert "exit status 1" in ended["wrong"]
    assert "no_such_module" in (tmp_path / "wrong.txt").read_text()
    assert "stopped after 3 s" in ended["long"]
    assert "KeyboardInterrupt" in (tmp_path / "long.txt").read_text()  # it had a last word
    assert ended["right"] == "done"


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1]
    except OSError:
        return False
    return not state.startswith("Z")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_what_a_step_started_does_not_outlive_it(tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "_LAST_WORDS", 0.1)
    starts = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    once = ("timeit", "-n", "1", "-r", "1")
    steps = [
        Step("ends", (*once, starts), 60),
        Step("stopped", (*once, f"{starts}; {deaf}; {SLEEP[-1]}"), 3),
    ]
    statuses = [status for _, status in run(steps, tmp_path, seconds=60)]
    assert statuses[0] == "done"
    assert "stopped after 3 s" in statuses[1]
    for step in steps:
        assert not _runs(int((tmp_path / f"{step.name}.txt").read_text().split()[0]))


def test_tests_for_a_gpu_are_all_in_the_files_that_the_first_step_runs():
    marked = {
        str(path.relative_to(path.parent.parent))
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__) and re.search(r"mark\.gpu|ON_GPU", path.read_text())
    }
    assert marked == {part for part in STEPS[0].module if part.startswith("tests")}


def test_no_step_begins_when_the_time_is_over(tmp_path):
    ended = [status for _, status in run([Step("late", SLEEP, 60)], tmp_path, seconds=0)]
    assert ended == ["no time was left"]
    assert not list(tmp_path.iterdir())


def test_json_files_are_the_folders(tmp_path):
    step = Step("own", ("json.tool", "--sort-keys", "given.json", "{name}.json"), 60)
    (tmp_path / "given.json").write_text('{"a": 1}')
    assert [status for _, status in run([step], tmp_path, seconds=60)] == ["done"]
    assert (tmp_path / "own.json").exists()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_names_a_module_that_is_there(step):
    module = importlib.util.find_spec(step.module[0])
    assert module is not None
    assert module.origin is not None
    assert Path(module.origin).exists()


def test_the_command_says_how_each_step_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(on_gpu, "STEPS", (Step("right", ("platform",), 60),))
    assert on_gpu.main([str(tmp_path / "new")]) == 0
    assert "right: done" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["rates", "kernel_times"])
def test_without_a_gpu_what_needs_one_says_so(command, monkeypatch, capsys):
    pytest.importorskip("triton")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert importlib.import_module(f"benchmarks.{command}").main([]) == 1
    assert "finds none" in capsys.readouterr().err


def test_kernel_times_that_were_measured_are_stored_though_a_later_shape_fails(
    tmp_path, monkeypatch
):
    pytest.importorskip("triton")
    from types import SimpleNamespace

    from benchmarks import kernel_times

    def build(problem):
        return SimpleNamespace(inference=str(problem), training=str(problem))

    def kernel_seconds(call, _device):
        if call.startswith("14x14"):
            raise RuntimeError("the machine is taken away")
        return {"pool": (1, 2e-6)}

    file = tmp_path / "times.json"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernel_times, "describe", lambda _device: {})
    monkeypatch.setattr(kernel_times, "make_problem", lambda shape, *_: shape)
    monkeypatch.setattr(kernel_times, "kernel_seconds", kernel_seconds)
    names = (kernel_times.FLOOR, "lca-triton")
    monkeypatch.setattr(kernel_times, "PEERS", dict.fromkeys(names, SimpleNamespace(build=build)))
    with pytest.raises(RuntimeError, match="taken away"):
        kernel_times.main(["--shapes", "7x7-N1-C8,14x14-N1-C8", "--json", str(file)])
    rows = json.loads(file.read_text())["kernels"]
    assert len(rows) == 8, "two layouts, two modes, floor and LCA"
    assert {row["shape"] for row in rows} == {"7x7-N1-C8"}
