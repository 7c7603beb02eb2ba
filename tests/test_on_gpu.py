"""What is run on a machine with a GPU, as far as that can be tested on one without."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks import on_gpu
from benchmarks.on_gpu import STEPS, Step, run

SLEEP = ("timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)")


def test_steps_go_on_after_one_that_fails_and_one_that_takes_too_long(tmp_path):
    steps = [
        Step("wrong", ("no_such_module",), 60),
        Step("long", SLEEP, 1),
        Step("right", ("platform",), 60),
    ]
    ended = {step.name: status for step, status in run(steps, tmp_path, seconds=600)}
    assert "exit status 1" in ended["wrong"]
    assert "no_such_module" in (tmp_path / "wrong.txt").read_text()
    assert "stopped after 1 s" in ended["long"]
    assert ended["right"] == "done"


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
