"""Run the tests of Triton's kernels without a GPU, in its interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
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


@pytest.mark.slow
@pytest.mark.parametrize("tests", INTERPRETED)
def test_kernels_agree_with_the_reference_in_the_interpreter(tests):
    if (reason := no_interpreter()) is not None:
        pytest.skip(reason)
    # The variable must be set before triton is imported, hence another process.
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{tests}.py"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-10_000:] + result.stderr[-2_000:]
