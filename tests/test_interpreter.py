"""Run tests/test_kernels.py without a GPU, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lca_fused.backends.triton_gpu import no_compiler

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_kernels_agree_with_the_reference_in_the_interpreter():
    if (reason := no_compiler()) is not None:
        pytest.skip(reason)
    # The variable must be set before triton is imported, hence another process.
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "tests/test_kernels.py"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-10_000:] + result.stderr[-2_000:]
