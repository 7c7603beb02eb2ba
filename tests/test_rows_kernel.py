"""What the compiler makes of the transposing copy; tests/test_kernels.py says that it is right."""

from __future__ import annotations

import os

import pytest
import torch

from lca_fused.backends import triton_gpu

pytestmark = pytest.mark.skipif(
    triton_gpu.no_compiler() is not None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="needs triton's compiler",
)


def compiled(x: torch.Tensor, target: str):
    from benchmarks.compile_only import compile_launch, recorded_launches
    from lca_fused.backends.triton_gpu.rows import to_rows

    with recorded_launches(target) as launches:
        to_rows(x)
    (launch,) = launches
    return compile_launch(launch).binary


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
@pytest.mark.parametrize("side", [7, 28])
def test_nothing_is_spilled(side, target, dtype):
    from benchmarks.disassembly import disassemble

    _, resources = disassemble(compiled(torch.empty(1, 2048, side, side, dtype=dtype), target))
    assert resources.spilled == 0


@pytest.mark.parametrize(("side", "loads"), [(7, "ld.global.b16"), (28, "ld.global.v4.b32")])
def test_an_nchw_map_is_read_along_its_positions_and_written_16_bytes_at_a_time(side, loads):
    x = torch.empty(1, 2048, side, side, dtype=torch.bfloat16)
    program = compiled(x, "sm_90").asm["ptx"]
    assert loads in program
    assert "st.global.v4.b32" in program
    assert "st.global.b16" not in program
