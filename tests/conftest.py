from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from lca_fused.backends import triton_gpu
from tests import quick_interpreter

_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:  # else the threads of each worker, and of what it starts, wait for another's cores
    _THREADS = max(1, (os.cpu_count() or 1) // _WORKERS)
    os.environ.setdefault("OMP_NUM_THREADS", str(_THREADS))
    torch.set_num_threads(_THREADS)

if triton_gpu._INTERPRETED and triton_gpu.no_compiler() is None:
    quick_interpreter.install()

# Some versions of torch want it for deterministic algorithms on a GPU; read when cuBLAS is loaded.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

hypothesis.settings.register_profile(
    "deterministic", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("deterministic")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data-root", help="folder with real photos (default: LCA_DATA_ROOT)")


@pytest.fixture(scope="session")
def data_root(request: pytest.FixtureRequest) -> Path:
    root = request.config.getoption("--data-root") or os.environ.get("LCA_DATA_ROOT")
    if not root:
        pytest.skip("no real photos: pass --data-root or set LCA_DATA_ROOT")
    return Path(root)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fill torch.empty and its kin with NaN, so that memory read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.zeros(1).new_empty(3).isnan().all()
        assert torch.empty_like(torch.zeros(3)).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)
