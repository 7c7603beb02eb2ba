"""What a call costs in Python, measured with a driver that does nothing; no time is asserted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lca_fused.backends import triton_gpu

ROOT = Path(__file__).parent.parent

needs_compiler = pytest.mark.skipif(
    triton_gpu.no_compiler() is not None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="needs triton's compiler",
)


def run(*arguments, **environment):
    """The command in a process of its own: it gives Triton another driver and keeps it."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--host", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@needs_compiler
@pytest.mark.slow
def test_the_layer_and_linear_are_timed_without_a_gpu():
    done = run("--rounds", "2")
    assert done.returncode == 0, done.stderr
    _, _, *lines = done.stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [name for name, _, _ in cells] == [
        f"{what}, {how}"
        for what in ("the layer", "F.linear")
        for how in ("no_grad", "forward in training", "forward and backward")
    ]
    for name, median, tenth in cells:
        assert 0 < float(tenth) <= float(median), name


@needs_compiler
def test_the_interpreter_is_refused():
    done = run(TRITON_INTERPRET="1")
    assert done.returncode == 1
    assert "unset it" in done.stderr


BOTH_WAYS = """
import torch, triton
import triton.language as tl
from benchmarks.host import DriverThatDoesNothing


@triton.jit
def double(x_ptr, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(x_ptr + i, 2 * tl.load(x_ptr + i, mask=i < n), mask=i < n)


triton.runtime.driver.set_active(DriverThatDoesNothing())
launches = []
DriverThatDoesNothing.launcher_cls.__call__ = lambda self, *arguments: launches.append(arguments)
x = torch.ones(24)
compiled = double[(1,)](x, 24, 32)
compiled[(1, 1, 1)](x, 24, 32)
compiled.run(1, 1, 1, 0, compiled.function, compiled.packed_metadata, None, None, None, x, 24, 32)
assert len(launches) == 3, launches
assert bool((x == 1).all())
"""


@pytest.mark.slow
@needs_compiler
def test_kernels_are_launched_and_nothing_happens(tmp_path):
    """Both ways to launch: through the JIT function, and the compiled kernel itself."""
    program = tmp_path / "program.py"  # Triton reads a kernel's source from its file
    program.write_text(BOTH_WAYS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_what_the_driver_lacks_is_named():
    program = """
import triton
from benchmarks import host

del host.DriverThatDoesNothing.get_current_stream
raise SystemExit(host.main(rounds=1))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "get_current_stream" in done.stderr
    assert "3.6 and 3.8" in done.stderr
