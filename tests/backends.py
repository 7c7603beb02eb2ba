"""The backends that can be tested here, as pytest parameters: Triton's, Numba's and torch's.

A parameter is (device, backend). Triton runs on a GPU or in its interpreter, which needs
TRITON_INTERPRET=1 before triton is imported, that is, for a whole run of pytest.
"""

from __future__ import annotations

import pytest
import torch

from lca_fused.backends import numba_cpu, triton_gpu

INTERPRETED = triton_gpu._INTERPRETED
GPUS = torch.cuda.device_count()
ON_GPU = pytest.param(
    ("cuda", "triton"),
    id="triton on a GPU",
    marks=[pytest.mark.gpu, pytest.mark.skipif(GPUS == 0 or INTERPRETED, reason="no GPU")],
)
IN_INTERPRETER = pytest.param(
    ("cpu", "triton"),
    id="triton interpreted",
    marks=pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1"),
)
NUMBA = pytest.param(
    ("cpu", "numba"),
    id="numba",
    marks=pytest.mark.skipif(
        INTERPRETED or numba_cpu.unavailable(torch.zeros(1)) is not None, reason="no numba"
    ),
)
EAGER = pytest.param(
    ("cpu", "eager"),
    id="eager",
    marks=pytest.mark.skipif(INTERPRETED, reason="tested outside the interpreter"),
)

# The interpreter multiplies bfloat16 as integers and rounds to it towards zero.
SIXTEEN_BIT = [
    torch.float16,
    pytest.param(torch.bfloat16, marks=pytest.mark.skipif(INTERPRETED, reason="interpreter")),
]

PATHS = ["one launch", "matmul and pooling"]


def take(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Have Triton's backend take one of `PATHS`, where it can serve the call."""
    if triton_gpu.no_compiler() is not None:
        return
    from lca_fused.backends.triton_gpu import dispatch, pooling

    def one_launch(_n, height, width, dtype, training, gpu) -> bool:
        kept = dispatch.recomputes_gates if training else dispatch.in_registers
        served = dtype != torch.float64 and kept(height, width, dtype, gpu)
        return path == "one launch" and served

    monkeypatch.setattr(pooling, "one_launch", one_launch)
