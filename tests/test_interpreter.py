"""Run the tests of Triton's kernels without a GPU, in its interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from lca_fused.backends.triton_gpu import no_compiler

ROOT = Path(__file__).parents[1]
INTERPRETED = ("test_kernels", "test_large_map", "test_arithmetic", "test_bias")


def no_interpreter() -> str | None:
    """Why kernels cannot be interpreted here."""
    if (reason := no_compiler()) is not None:
        return reason
    if Version(version("triton")) < Version("3.7") and Version(version("numpy")) >= Version("2.4"):
        return "the interpreter of triton before 3.7 fails with numpy from 2.4"
    return None


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[dict[str, tuple[subprocess.Popen[str], Path]]]:
    """All files at once, each in a process of its own, and where it writes.

    The variable must be set before triton is imported.
    """
    if (reason := no_interpreter()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("interpreted")
    processes = {}
    for name in INTERPRETED:
        output = folder / f"{name}.txt"
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{name}.py"],
                cwd=ROOT,
                env=os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"},
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        processes[name] = process, output
    yield processes
    for process, _ in processes.values():
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", INTERPRETED)
def test_kernels_agree_with_the_reference_in_the_interpreter(running, name):
    process, output = running[name]
    assert process.wait() == 0, output.read_text()[-10_000:]
