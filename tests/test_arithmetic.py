"""The arithmetics of the kernels of small maps, in Triton's interpreter or on a GPU.

The interpreter rounds to bfloat16 towards zero, so that kernels write float32 here where they can.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from lca_fused import local_concepts_accumulation, packed_halves
from lca_fused.backends import triton_gpu
from lca_fused.rectangles import KernelSizes
from reference.lca import lca_reference
from tests import quick_interpreter
from tests.backends import take
from tests.parity import errors, random_gradient, random_inputs, relative_error

if (reason := triton_gpu.no_compiler()) is not None:
    pytest.skip(reason, allow_module_level=True)

from lca_fused.backends.triton_gpu import dispatch, launch
from lca_fused.backends.triton_gpu.dispatch import Columns
from lca_fused.backends.triton_gpu.large_map import pool_large_map
from lca_fused.backends.triton_gpu.small_map import pool_small_map, small_map_gradient

INTERPRETED = triton_gpu._INTERPRETED
DEVICE = "cpu" if INTERPRETED else "cuda"
needs_kernels = [
    pytest.mark.skipif(
        not INTERPRETED and torch.cuda.device_count() == 0,
        reason="needs a GPU, or TRITON_INTERPRET=1",
    ),
    *([] if INTERPRETED else [pytest.mark.gpu]),
]
FEATURES = 64
EVERY = {
    "maximum": torch.float32,
    "saturated": torch.float32,
    "fixed point": torch.float16,
    "halves": torch.bfloat16,
}


def kernels(function):
    for mark in needs_kernels:
        function = mark(function)
    return function


def projection_of(
    side: tuple[int, int], dtype: torch.dtype, biases: tuple[float, ...] = (0.0,)
) -> Tensor:
    """(1, H, W, D) with FEATURES features around each bias: a program takes all of them."""
    generator = torch.Generator().manual_seed(0)
    features = len(biases) * FEATURES
    numbers = torch.randn(1, *side, features, generator=generator, dtype=torch.float64)
    numbers += torch.tensor(biases, dtype=torch.float64).repeat_interleave(FEATURES)
    return numbers.to(dtype).to(DEVICE)


def reference(projection: Tensor, sizes: KernelSizes | None, grad: Tensor) -> tuple[Tensor, Tensor]:
    """What the reference pools a projection to, and the gradient, in float64 on the CPU."""
    leaf = projection.cpu().double().requires_grad_()
    identity = torch.eye(projection.shape[-1], dtype=torch.float64)
    pooled = lca_reference(leaf.permute(0, 3, 1, 2), identity, kernel_sizes=sizes)
    return pooled.detach(), torch.autograd.grad(pooled, leaf, grad.cpu().double())[0]


def pooled_by(arithmetic: str, projection: Tensor, sizes: KernelSizes | None = None) -> Tensor:
    dtype = projection.dtype if arithmetic == "halves" else torch.float32
    pooled = torch.empty(1, projection.shape[-1], dtype=dtype, device=DEVICE)
    pool_small_map(projection, pooled, sizes, Columns(arithmetic, 256))
    return pooled


def gradient_by(
    arithmetic: str, projection: Tensor, grad: Tensor, sizes: KernelSizes | None = None
) -> tuple[Tensor, Tensor]:
    return small_map_gradient(projection, grad, sizes, Columns(arithmetic, 256))


def assert_close_around_each_bias(actual: Tensor, expected: Tensor, limit: float) -> None:
    groups = (actual.split(FEATURES, dim=-1), expected.split(FEATURES, dim=-1))
    found = [relative_error(a, e) for a, e in zip(*groups, strict=True)]
    assert max(found) <= limit, found


@kernels
@pytest.mark.parametrize(
    ("side", "sizes"), [((7, 7), None), ((4, 3), ((1, 1), (2, 2), (3, 1))), ((1, 2), None)]
)
@pytest.mark.parametrize("arithmetic", ["maximum", "saturated"])
def test_float32_stays_within_2e_6_for_any_bias_and_dead_columns_are_exactly_zero(
    arithmetic, side, sizes
):
    projection = projection_of(side, torch.float32, (0.0, -1.0, -2.0, 5.0))
    projection[..., ::5] -= 10
    grad = random_gradient((1, projection.shape[-1]), torch.float32).to(DEVICE)
    expected, expected_gradient = reference(projection, sizes, grad)
    pooled = pooled_by(arithmetic, projection, sizes)
    gradient, sums = gradient_by("maximum", projection, grad, sizes)
    assert_close_around_each_bias(pooled, expected, 2e-6)
    assert_close_around_each_bias(gradient, expected_gradient, 2e-6)
    assert_close_around_each_bias(sums, expected_gradient.sum((1, 2)), 2e-6)
    dead = (expected == 0).flatten()
    assert dead.any()
    assert not pooled[:, dead].any()
    assert not gradient[..., dead].any()
    assert not sums[:, dead].any()


@kernels
def test_fixed_point_rounds_far_less_than_16_bit_numbers_do():
    projection = projection_of((7, 7), torch.float16, (0.0, -1.0, -2.0))
    expected, _ = reference(projection, None, torch.zeros(1, projection.shape[-1]))
    pooled = pooled_by("fixed point", projection)
    # A number is a multiple of 2^-17 of the power of two below the column's largest one, some 4,
    # and sums of them are exact.
    assert (pooled.cpu() - expected).abs().max() <= 4 * 2**-17
    assert_close_around_each_bias(pooled, expected, 2e-5)
    dead = (expected == 0).flatten()
    assert dead.any()
    assert not pooled[:, dead].any()


@kernels
@pytest.mark.parametrize("bias", [0.0, -1.0, -2.0])
def test_errors_of_halves_are_at_most_twice_those_of_torch_in_bfloat16(bias, monkeypatch):
    take(monkeypatch, "matmul and pooling")
    inputs = random_inputs((1, 64, 7, 7), 128, dtype=torch.bfloat16)
    inputs["bias"].fill_(bias)
    inputs = {name: tensor.to(DEVICE) for name, tensor in inputs.items()}
    grad = random_gradient((1, 128), torch.bfloat16).to(DEVICE)
    assert dispatch.columns_of(1, 128, torch.bfloat16, launch.HOPPER).arithmetic == "halves"
    ours = errors(partial(local_concepts_accumulation, backend="triton"), inputs, grad)
    theirs = errors(lca_reference, inputs, grad)
    assert all(ours[name] <= 2 * theirs[name] for name in ours), (ours, theirs)


@kernels
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("arithmetic", EVERY)
def test_a_column_that_holds_nan_or_an_infinity_is_nan_and_no_other(arithmetic, number):
    projection = projection_of((3, 4), EVERY[arithmetic])
    grad = torch.ones(1, FEATURES, dtype=projection.dtype, device=DEVICE)
    gates = "halves" if arithmetic == "halves" else "maximum"
    expected = pooled_by(arithmetic, projection), *gradient_by(gates, projection, grad)
    projection[0, 1, 3, 5] = number
    found = pooled_by(arithmetic, projection), *gradient_by(gates, projection, grad)
    others = torch.arange(FEATURES) != 5
    for actual, before in zip(found, expected, strict=True):
        assert actual[..., 5].isnan().all()
        assert torch.equal(actual[..., others], before[..., others])


@kernels
@pytest.mark.parametrize("exponent", [-100, -20, 20, 100])
@pytest.mark.parametrize("arithmetic", ["maximum", "saturated", "fixed point", "halves"])
def test_a_column_times_a_power_of_two_gives_the_same_digits(arithmetic, exponent):
    dtype = torch.bfloat16 if arithmetic in ("fixed point", "halves") else torch.float32
    projection = projection_of((3, 4), dtype)
    scaled = (projection.double() * 2.0**exponent).to(dtype)
    expected = pooled_by(arithmetic, projection).double() * 2.0**exponent
    assert torch.equal(pooled_by(arithmetic, scaled).double(), expected)
    grad = torch.ones(1, FEATURES, dtype=dtype, device=DEVICE)
    gates = "halves" if arithmetic == "halves" else "maximum"
    for actual, before in zip(
        gradient_by(gates, scaled, grad), gradient_by(gates, projection, grad), strict=True
    ):
        assert torch.equal(actual, before), "gates are those of the column as it was"


@pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")
@pytest.mark.parametrize(("side", "bias"), [((5, 6), -1.0), ((2, 18), 0.0), ((3, 17), -2.0)])
def test_halves_in_numpy_have_the_bits_of_halves_in_the_interpreter(side, bias, monkeypatch):
    projection = projection_of(side, torch.bfloat16, (bias,))

    def pooled() -> list[Tensor]:
        outputs = [torch.empty(1, FEATURES) for _ in range(2)]
        gate_map = torch.empty_like(projection)
        pool_large_map(projection, outputs[0], None, None, halves=True)
        pool_large_map(projection, outputs[1], gate_map, None, halves=True)
        return [*outputs, gate_map]

    expected = pooled()
    quick_interpreter.halves_in_numpy(monkeypatch)
    for actual, before in zip(pooled(), expected, strict=True):
        assert torch.equal(actual, before)


GPUS = {
    "sm_80": launch.Gpu(32, 80, 163 << 10),
    "sm_86": launch.Gpu(32, 86, 99 << 10),
    "sm_90": launch.HOPPER,
    "sm_120": launch.Gpu(32, 120, 99 << 10),
    "gfx942": launch.Gpu(64, None, 64 << 10),
}


@pytest.mark.parametrize(
    ("gpu", "dtype", "d", "arithmetic"),
    [
        ("sm_90", torch.bfloat16, 2048, "halves"),
        ("sm_80", torch.bfloat16, 2048, "halves"),
        ("sm_90", torch.bfloat16, 2047, "fixed point"),
        ("sm_90", torch.float16, 2048, "fixed point"),
        ("sm_86", torch.bfloat16, 2048, "fixed point"),
        ("sm_120", torch.bfloat16, 2048, "fixed point"),
        ("sm_90", torch.float32, 2048, "saturated"),
        ("sm_90", torch.float64, 2048, "maximum"),
        ("gfx942", torch.bfloat16, 2048, "maximum"),
    ],
)
def test_each_gpu_and_dtype_has_its_arithmetic(gpu, dtype, d, arithmetic):
    assert dispatch.columns_of(256, d, dtype, GPUS[gpu]).arithmetic == arithmetic


def test_packed_halves_can_be_switched_off_for_a_while():
    def taken() -> str:
        return dispatch.columns_of(256, 2048, torch.bfloat16, launch.HOPPER).arithmetic

    with packed_halves(False):
        assert taken() == "fixed point"
        with packed_halves(True):
            assert taken() == "halves"
        with pytest.raises(RuntimeError), packed_halves(True):
            raise RuntimeError
        assert taken() == "fixed point"
    assert taken() == "halves"
