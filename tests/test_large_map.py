"""The kernels that walk maps band by band, on projections given directly.

Without a GPU they need TRITON_INTERPRET=1, as those of tests/test_kernels.py do.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lca_fused.backends import triton_gpu
from lca_fused.rectangles import KernelSizes
from reference.lca import lca_reference
from tests import quick_interpreter
from tests.parity import relative_error, with_gradients

INTERPRETED = triton_gpu._INTERPRETED
GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (GPU or INTERPRETED), reason="needs a GPU, or TRITON_INTERPRET=1"),
    pytest.mark.usefixtures("poisoned_memory"),
]
# (H, W): whole; a map higher than wide; with the gate map in two and three chunks; without it too.
SIDES = [(5, 6), (9, 4), (3, 17), (2, 35)]
LONG_SIZES = ((2, 6), (5, 1), (6, 6))
BIASES = [-5.0, -2.0, -1.0, 0.0, 5.0]


@pytest.fixture
def quick_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    if INTERPRETED:
        quick_interpreter.halves_in_numpy(monkeypatch)


def pool(
    projection: Tensor,
    *,
    gate: bool,
    halves: bool = False,
    kernel_sizes: KernelSizes | None = None,
    splits: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Pooled (N, D) in the dtype of sums, and the gate map (N, H, W, D)."""
    from lca_fused.backends.triton_gpu.large_map import pool_large_map

    projection = projection.to(DEVICE)
    n, _, _, d = projection.shape
    # The interpreter rounds to bfloat16 towards zero: sums are stored as they are.
    summed_in = torch.float64 if projection.dtype == torch.float64 else torch.float32
    pooled = projection.new_empty(n, d, dtype=summed_in)
    gate_map = torch.empty_like(projection) if gate else None
    pool_large_map(projection, pooled, gate_map, kernel_sizes, halves=halves, splits=splits)
    return pooled.cpu(), None if gate_map is None else gate_map.cpu()


def random_projection(
    side: tuple[int, int], bias: float, dtype: torch.dtype = torch.float32, d: int = 48
) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, *side, d, generator=generator, dtype=torch.float64) + bias).to(dtype)


def expected(projection: Tensor, kernel_sizes: KernelSizes | None = None) -> tuple[Tensor, Tensor]:
    """Pooled and H * W times the gate map, by the reference in float64."""
    d, positions = projection.shape[3], projection.shape[1] * projection.shape[2]
    leaf = projection.double().clone().requires_grad_()
    same = torch.eye(d, dtype=torch.float64)
    pooled = lca_reference(leaf.permute(0, 3, 1, 2), same, kernel_sizes=kernel_sizes)
    (gate,) = torch.autograd.grad(pooled.sum(), leaf)
    return pooled.detach(), gate * positions


def assert_within(
    limit: float, projection: Tensor, sizes: KernelSizes | None = None, gate_limit: float = 0.0
) -> None:
    """Compare sums without and with a gate map, and the gate map, with the reference."""
    pooled, gate_map = expected(projection, sizes)
    ours = pool(projection, gate=True, kernel_sizes=sizes)
    alone, _ = pool(projection, gate=False, kernel_sizes=sizes)
    assert relative_error(alone, pooled) <= limit
    assert relative_error(ours[0], pooled) <= limit
    assert relative_error(ours[1], gate_map) <= max(limit, gate_limit)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("bias", BIASES)
def test_float32_is_within_2e_6_however_many_rectangles_are_negative(side, bias):
    projection = random_projection(side, bias)
    assert_within(2e-6, projection)
    pooled, _ = expected(projection)
    for splits in (1, 2):
        assert relative_error(pool(projection, gate=False, splits=splits)[0], pooled) <= 2e-6


@pytest.mark.parametrize("bias", [0.0, -1.0])
@pytest.mark.parametrize("sizes", [((1, 1),), LONG_SIZES])
def test_kernel_sizes_may_be_chosen(sizes, bias):
    assert_within(2e-6, random_projection((6, 18), bias), sizes)


@pytest.mark.parametrize(
    ("side", "sizes", "bias"), [((3, 17), None, -2.0), ((6, 18), LONG_SIZES, -1.0)]
)
def test_no_column_is_off_by_more_than_eight_roundings_of_its_open_rectangles(side, sizes, bias):
    """Where few rectangles are open, and barely so, that can be more than 2e-6 of a column."""
    projection = random_projection(side, bias, d=64)
    pooled, gate_map = expected(projection, sizes)
    share_that_is_open = gate_map.mean((1, 2))
    limit = 8 * 2**-24 * (1 + abs(bias)) * share_that_is_open
    for gate in (False, True):
        error = (pool(projection, gate=gate, kernel_sizes=sizes)[0] - pooled).abs()
        assert (error <= limit).all(), (error / limit).nan_to_num().max()


@pytest.mark.parametrize("side", [(5, 6), (2, 35)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_summed_up_with_far_less_error_than_they_have(side, dtype):
    # Fixed point has 24 digits for the largest sum that a column could have.
    limit = 1e-12 if dtype == torch.float64 else 4e-6
    rounded = 2 * torch.finfo(dtype).eps
    assert_within(limit, random_projection(side, -1.0, dtype), gate_limit=rounded)


@pytest.mark.parametrize(
    ("dtype", "halves"),
    [
        (torch.float64, False),
        (torch.float32, False),
        (torch.float16, False),
        (torch.bfloat16, False),
        (torch.bfloat16, True),
    ],
)
def test_a_column_whose_rectangles_are_all_negative_gives_exactly_zero(dtype, halves):
    projection = random_projection((3, 17), -100.0, dtype, d=2)
    assert not pool(projection, gate=False, halves=halves)[0].any()
    for tensor in pool(projection, gate=True, halves=halves):
        assert not tensor.any()


@pytest.mark.usefixtures("quick_halves")
@pytest.mark.parametrize("splits", [2, 3, 8])
@pytest.mark.parametrize(
    ("width", "gate", "halves", "limit"),
    [(8, False, False, 2e-7), (18, True, False, 5e-7), (18, True, True, 2e-3)],
    ids=["no gate map", "gate map in chunks", "halves"],
)
def test_top_rows_may_be_shared_out_and_sums_are_repeatable(width, gate, halves, limit, splits):
    dtype = torch.bfloat16 if halves else torch.float32
    projection = random_projection((7, width), -0.5, dtype, d=16 if gate else 48)
    whole, first, second = (
        pool(projection, gate=gate, halves=halves, splits=n)[: 1 + gate]
        for n in (1, splits, splits)
    )
    assert all(map(torch.equal, first, second))
    for shared, alone in zip(first, whole, strict=True):
        assert relative_error(shared, alone.double()) <= limit


def test_no_mean_is_negative_where_rectangles_are_barely_open(monkeypatch):
    """Of a column whose every open rectangle is worth a rounding of the sums it is taken from."""
    if INTERPRETED:
        quick_interpreter.fma_rounds_once(monkeypatch)
    projection = torch.full((1, 2, 17, 2), -float.fromhex("0x1.e329bap+0"))
    units = {0: 3, 1: -2, 2: 0, 5: 1, 6: -2, 7: 0, 8: -2}
    for column, number in units.items():
        projection[0, 0, column] = number * 2.0**-23
    for gate in (False, True):
        assert (pool(projection, gate=gate)[0] >= 0).all()


@pytest.mark.parametrize("magnitude", [1e-38, 1e-20, 1e30, 1e36])
def test_columns_of_any_magnitude_keep_their_digits(magnitude):
    projection = random_projection((4, 5), -0.3) * magnitude
    pooled, _ = expected(projection)
    assert relative_error(pool(projection, gate=False)[0], pooled) <= 2e-6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("dtype", "halves"),
    [
        (torch.float64, False),
        (torch.float32, False),
        (torch.float16, False),
        (torch.bfloat16, True),
    ],
)
def test_a_column_with_nan_or_infinity_gives_nan_and_leaves_its_neighbours_right(
    value, dtype, halves
):
    projection = random_projection((4, 5), 0.0, dtype)
    pooled, _ = expected(projection)
    projection[1, 2, 3, 4] = value
    limit = 5e-3 if halves else 2e-6
    for gate in (False, True):
        ours = pool(projection, gate=gate, halves=halves)[0]
        assert ours[1, 4].isnan()
        ours[1, 4] = pooled[1, 4]
        assert relative_error(ours, pooled) <= limit


@pytest.mark.slow
@pytest.mark.usefixtures("quick_halves")
@pytest.mark.parametrize("side", [(2, 17), (9, 9), (14, 14), (28, 28)])
def test_packed_halves_err_at_most_twice_as_much_as_torch_in_bfloat16(side):
    """Outputs and gradients of x, separately for features of each bias, in one call for all."""
    generator = torch.Generator().manual_seed(0)
    biases = (0.0, -1.0, -2.0)
    features, channels = 64, 64
    x = torch.randn(1, channels, *side, generator=generator).bfloat16()
    weight = torch.randn(3 * features, channels, generator=generator).bfloat16() / channels**0.5
    bias = torch.tensor(biases).repeat_interleave(features).bfloat16()
    gradient = torch.randn(1, 3 * features, generator=generator).bfloat16()
    projection = F.linear(x.permute(0, 2, 3, 1).double(), weight.double(), bias.double()).bfloat16()
    without_gate, _ = pool(projection, gate=False, halves=True)
    pooled, gate_map = pool(projection, gate=True, halves=True)
    for group in range(len(biases)):
        part = slice(group * features, (group + 1) * features)
        inputs = {"x": x, "weight": weight[part], "bias": bias[part]}
        doubles = {name: tensor.double() for name, tensor in inputs.items()}
        double = with_gradients(lca_reference, doubles, gradient[:, part].double())
        torchs = with_gradients(lca_reference, inputs, gradient[:, part].bfloat16())
        of_projection = gate_map[..., part].double() * gradient[:, None, None, part].double()
        of_x = (of_projection.bfloat16().double() @ weight[part].double()).permute(0, 3, 1, 2)
        of_x = of_x.bfloat16() / (side[0] * side[1])
        ours = {
            "without gate": (without_gate[:, part].bfloat16(), "output"),
            "with gate": (pooled[:, part].bfloat16(), "output"),
            "gradient of x": (of_x, "x"),
        }
        for name, (result, place) in ours.items():
            error = relative_error(result, double[place])
            limit = 2 * relative_error(torchs[place], double[place])
            assert error <= limit, (name, biases[group], error, limit)
