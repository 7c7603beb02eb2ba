"""The model that predicts times from what is counted in the kernels."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.cost import Cost
from benchmarks.shapes import shape
from lca_fused.backends import triton_gpu

if triton_gpu.no_compiler() is not None or os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs triton's compiler", allow_module_level=True)

from benchmarks import prediction
from benchmarks.analysis import Analysis
from benchmarks.compile_only import Launch
from benchmarks.disassembly import Resources
from benchmarks.prediction import LOAD_CYCLES, Gpu, step_seconds
from benchmarks.steps import Pass, Product, steps_of

GPU = Gpu("GPU", memory_bandwidth=1e12, multiprocessors=100, clock=1e9, matrix_rate=1e14, l2_bandwidth=4e12)  # fmt: skip  # noqa: E501
EFFICIENCY = prediction.PRODUCT_EFFICIENCY


def kernel(
    *, programs=1, slots=1.0, cycles=1.0, loads=0, moved=0.0, tensors=1, product=0.0, **uses
):
    """A kernel of 128 threads a program, its product of `product` slots ahead of the rest."""
    launch = SimpleNamespace(programs=programs, warps=4, threads=128, tensor_bytes=tensors)
    whole = Cost(slots + product, slots + product, loads, 0, cycles + product)
    program = [SimpleNamespace(multiplies=product > 0)]
    pooling = Cost(slots, slots, loads, 0, cycles)
    resources = replace(Resources(registers=32, spilled=0, shared=0), **uses)
    return Analysis(launch, program, resources, whole, pooling, moved, 0.0)


def seconds(step):
    """Without what any step of its kind takes to start and to end."""
    besides = prediction.PRODUCT_SECONDS if isinstance(step, Product) else prediction.KERNEL_SECONDS
    return step_seconds(step, GPU) - besides


def test_a_product_is_bound_by_its_operations_or_its_bytes():
    assert seconds(Product(flops=EFFICIENCY * 1e14, bytes=1)) == pytest.approx(1)
    assert seconds(Product(flops=1, bytes=10**12)) == pytest.approx(1)
    assert seconds(Pass(bytes=10**12)) == pytest.approx(1)
    assert step_seconds(Pass(2 * 10**12, sums=True), GPU) == pytest.approx(1, abs=1e-4)


def test_many_warps_are_bound_by_issue_slots_and_few_by_their_own_cycles():
    assert seconds(kernel(programs=1000, slots=1e6, cycles=2e6)) == pytest.approx(10e-3)
    assert seconds(kernel(programs=1, slots=1e6, cycles=2e6)) == pytest.approx(2e-3)
    assert seconds(kernel(programs=101, slots=1e6, cycles=1.5e6)) == pytest.approx(2e-3), "a tail"


def test_warps_that_do_not_fit_at_a_time_wait_for_their_loads_in_turn():
    waits = 1e6 * LOAD_CYCLES / 1e9
    many = {"programs": 1000, "slots": 1.0, "cycles": 1.0, "loads": 1e6}  # ten rounds
    assert seconds(kernel(**many)) == pytest.approx(waits), "16 warps of each at a time"
    assert seconds(kernel(**many, registers=128)) == pytest.approx(3 * waits), "4 by registers"
    assert seconds(kernel(**many, shared=76 << 10)) == pytest.approx(5 * waits), "2 by memory"


def test_bytes_go_through_the_l2_cache_and_to_memory_if_they_do_not_stay():
    small = kernel(programs=100, moved=4e9, tensors=10**7)
    assert seconds(small) == pytest.approx(0.1), "at the speed of the cache"
    once = kernel(programs=100, moved=1e7, tensors=10**9)
    assert seconds(once) == pytest.approx(1e-3), "at the speed of the memory"
    # Programs that all run at a time: half of what they go through again does not fit.
    large = kernel(programs=100, moved=4e9, tensors=10**8)
    assert seconds(large) == pytest.approx(0.5 * 4e11 / 1e12)


def test_programs_that_wait_for_others_do_not_share_the_cache_with_them():
    assert prediction.resident_programs(kernel(registers=128), GPU) == 400
    assert prediction.resident_programs(kernel(registers=32), GPU) == 1600, "by threads"
    waiting = kernel(programs=800, registers=128, moved=4e9, tensors=10**8)
    assert seconds(waiting) == pytest.approx(0.8), "a working set of 50 MB fits"


def test_a_kernel_with_a_product_pools_when_its_operands_are_in():
    assert seconds(kernel(cycles=1e6, product=3e6, moved=4e9)) == pytest.approx(4e-3)
    assert seconds(kernel(cycles=1e6, product=3e6, moved=4e10)) == pytest.approx(11e-3)


def test_what_the_floor_does_is_found():
    of = shape(7, 7, 2, 64, 32)
    floor, _ = prediction.calls(of, training=True)
    flops = 2 * 98 * 64 * 32
    steps = steps_of(floor, "sm_90")
    products = [step for step in steps if isinstance(step, Product)]
    assert [step.flops for step in products] == [flops] * 3, "forward, and two gradients"
    assert products[0].bytes == 2 * (98 * 64 + 64 * 32 + 32 + 98 * 32)
    (bias,) = (step for step in steps if isinstance(step, Pass))
    assert bias == Pass(2 * (98 * 32 + 32), sums=True)
    inference, _ = prediction.calls(of, training=False)
    assert steps_of(inference, "sm_90") == products[:1]


def test_what_lca_does_is_found():
    _, few = prediction.calls(shape(7, 7, 1, 64), training=False)
    assert [type(step) for step in steps_of(few, "sm_90")] == [Launch]
    _, many = prediction.calls(shape(7, 7, 256, 2048), training=False)
    product, pooling = steps_of(many, "sm_90")
    assert product.flops == 2 * 256 * 49 * 2048**2
    assert pooling.tensor_bytes == 2 * (256 * 49 * 2048 + 256 * 2048)
    assert not any(value is None for value in (pooling.programs, pooling.warps))


@pytest.mark.slow
def test_predictions_are_a_table_that_says_so():
    rows = prediction.predict([shape(7, 7, 1, 2048)])
    assert [(row.gpu, row.mode) for row in rows] == [
        (gpu, mode) for mode in ("inference", "training") for gpu in ("H100", "H200")
    ]
    assert all(row.lca_seconds > row.floor_seconds > 0 for row in rows)
    heading, _, head, _, *lines = prediction.markdown(rows).splitlines()
    assert heading.startswith("**Predicted, not measured**")
    assert "781 TFLOP/s" in heading
    assert [cell.strip() for cell in head.strip("|").split("|")][-1] == "ratio"
    assert len(lines) == len(rows)


def test_unknown_loops_leave_the_ratio_out():
    unknown = kernel()
    unknown = Analysis(unknown.launch, unknown.program, unknown.resources, None, None, None, 0.0)
    row = prediction._prediction(GPU, shape(7, 7, 1, 64), "inference", [Pass(1)], [unknown])
    assert row.ratio is None
    assert prediction.markdown([row]).splitlines()[-1].split()[-4::2] == ["-", "-"]
