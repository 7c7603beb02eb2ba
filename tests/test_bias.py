"""Every backend against the reference over biases from -5 to 5, where most rectangles are closed.

What takes relu(z) as a difference of larger numbers passes with biases around zero and fails here.

A gate within rounding of zero may be decided either way, and one gate can be worth more than 2e-6
of a gradient. So the reference is computed at the bias and a few roundings to either side of it:
gradients may differ from it by what the gates between these two are worth, which is exactly nothing
unless some rectangle is that close to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lca_fused import local_concepts_accumulation
from reference.lca import lca_reference
from tests.backends import (
    EAGER,
    IN_INTERPRETER,
    INTERPRETED,
    NUMBA,
    ON_GPU,
    PATHS,
    SIXTEEN_BIT,
    take,
)
from tests.parity import (
    KernelSizes,
    errors,
    random_gradient,
    random_inputs,
    relative_error,
    with_gradients,
)

Inputs = dict[str, Tensor | None]

LIMITS = {torch.float32: 2e-6, torch.float64: 1e-12}
# So many roundings of 1 + |bias| off may z be where it decides a gate: of the projection, and of
# prefix sums over a row of it.
DOUBT = 16
FEATURES = 40  # so that some of any draw are well above zero, and the norm is theirs
LARGEST_SIDE = 9
SEVERAL_MAPS = [(1, 2), (2, 1), (3, 3), (5, 9), (7, 7), (14, 14)]
FEW_MAPS = [(3, 4), (7, 7), (14, 14)]
CONSTANT_BIASES = [0, -0.5, -1, -1.5, -2]
if (
    INTERPRETED
):  # an operation takes as long as a thousand on a GPU: a map in registers, one by bands
    LARGEST_SIDE, CONSTANT_BIASES = 4, [-2]
    SEVERAL_MAPS = FEW_MAPS = [(3, 4), (8, 9)]
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="takes the interpreter too long")


@dataclass(frozen=True)
class Backend:
    """A backend on a device, by one of the paths where it has several."""

    device: str
    name: str
    path: str

    def __call__(self, **inputs: Any) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            take(patch, self.path)
            return local_concepts_accumulation(**inputs, backend=self.name)


def _backends() -> list[Any]:
    by_path = [
        pytest.param(Backend(*where.values[0], path), id=f"{where.id}, {path}", marks=where.marks)
        for where in (IN_INTERPRETER, ON_GPU)
        for path in PATHS
    ]
    others = [
        pytest.param(Backend(*where.values[0], ""), id=where.id, marks=where.marks)
        for where in (EAGER, NUMBA)
    ]
    return others + by_path


every_backend = pytest.mark.parametrize("backend", _backends())


def drawn_inputs(
    shape: tuple[int, int, int, int], seed: int = 0, dtype: torch.dtype = torch.float32
) -> Inputs:
    """`random_inputs` with biases drawn uniformly from -5 to 5."""
    inputs = random_inputs(shape, FEATURES, seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(FEATURES, generator=generator, dtype=torch.float64)
    return inputs | {"bias": (10 * drawn - 5).to(dtype)}


def inputs_of_one_bias(
    shape: tuple[int, int, int, int], bias: float, dtype: torch.dtype = torch.float32
) -> Inputs:
    inputs = random_inputs(shape, FEATURES, dtype=dtype)
    return inputs | {"bias": torch.full((FEATURES,), bias, dtype=dtype)}


def check(
    backend: Backend, inputs: Inputs, kernel_sizes: KernelSizes = None, roundings: float = 0
) -> None:
    """Compare outputs and gradients, and see that what is closed is exactly zero.

    Args:
        backend: what to compare with the reference.
        inputs: x, weight and bias on the CPU, float32 or float64.
        kernel_sizes: as everywhere.
        roundings: of 1 + |bias| that every z may be off by. It moves an output by as much times
            the share of open rectangles, however well they are summed.
    """
    wide = {name: t.double() for name, t in inputs.items()}
    dtype, bias = inputs["x"].dtype, wide["bias"]
    gradient = random_gradient((wide["x"].shape[0], FEATURES), dtype)
    reference = partial(lca_reference, kernel_sizes=kernel_sizes)
    doubt = DOUBT * torch.finfo(dtype).eps / 2 * (1 + bias.abs())
    below, expected, above = (
        with_gradients(reference, wide | {"bias": shifted}, gradient.double())
        for shifted in (bias - doubt, bias, bias + doubt)
    )
    allowed = {name: LIMITS[dtype] + _distance(below, above, expected, name) for name in expected}
    to_output = _distance(below, above, expected, "output") / (2 * DOUBT)
    allowed["output"] = allowed["inference"] = LIMITS[dtype] + roundings * to_output

    function = partial(backend, kernel_sizes=kernel_sizes)
    here = {name: t.to(backend.device) for name, t in inputs.items()}
    actual = with_gradients(function, here, gradient.to(backend.device))
    actual = {name: t.cpu() for name, t in actual.items()} | {"inference": function(**here).cpu()}
    expected["inference"] = expected["output"]
    found = {name: relative_error(actual[name], expected[name]) for name in actual}
    assert all(found[name] <= allowed[name] for name in found), (found, allowed)
    _check_zeros(actual, closed=above["output"] == 0)


def _distance(
    below: dict[str, Tensor], above: dict[str, Tensor], expected: dict[str, Tensor], name: str
) -> float:
    return float((above[name] - below[name]).norm() / (expected[name].norm() or 1.0))


def _check_zeros(actual: dict[str, Tensor], closed: Tensor) -> None:
    """See that the columns (n, d) in `closed` are exactly zero and pass on no gradient."""
    assert not actual["output"][closed].any()
    assert not actual["inference"][closed].any()
    assert not actual["x"][closed.all(dim=1)].any()
    assert not actual["weight"][closed.all(dim=0)].any()
    assert not actual["bias"][closed.all(dim=0)].any()


@every_backend
@settings(max_examples=4 if INTERPRETED else 40)
@given(
    n=st.integers(1, 3),
    c=st.integers(8, 24),  # of one channel alone, a gradient of the weight may cancel
    side=st.tuples(st.integers(1, LARGEST_SIDE), st.integers(1, LARGEST_SIDE)),
    seed=st.integers(0, 9999),
    data=st.data(),
)
def test_biases_from_minus_5_to_5_on_small_maps(backend, n, c, side, seed, data):
    pairs = st.tuples(st.integers(1, side[0]), st.integers(1, side[1]))
    some = st.lists(pairs, min_size=1, max_size=5, unique=True)
    kernel_sizes = data.draw(some if side == (1, 1) else st.none() | some, "kernel_sizes")
    check(backend, drawn_inputs((n, c, *side), seed), kernel_sizes)


@every_backend
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("side", SEVERAL_MAPS, ids=str)
def test_biases_from_minus_5_to_5_on_maps_of_any_shape(backend, side, dtype):
    check(backend, drawn_inputs((2, 16, *side), dtype=dtype))


@every_backend
@not_interpreted
@pytest.mark.slow
def test_biases_from_minus_5_to_5_on_28x28_maps(backend):
    check(backend, drawn_inputs((1, 6, 28, 28)))


@every_backend
@pytest.mark.parametrize("bias", CONSTANT_BIASES)
@pytest.mark.parametrize("side", SEVERAL_MAPS, ids=str)
def test_one_bias_that_closes_almost_everything(backend, side, bias):
    """The projection is off by a rounding of 1 + |bias| or so, and sums of it by another."""
    check(backend, inputs_of_one_bias((2, 16, *side), bias), roundings=2)


@every_backend
@pytest.mark.parametrize("side", FEW_MAPS, ids=str)
def test_features_that_are_never_positive_are_exactly_zero(backend, side):
    inputs = inputs_of_one_bias((2, 6, *side), -5)
    inputs["weight"] /= 4
    assert not lca_reference(**inputs).any()
    check(backend, inputs)


@every_backend
@pytest.mark.parametrize("side", FEW_MAPS, ids=str)
def test_ties_at_zero_are_closed(backend, side):
    x = torch.zeros(2, 6, *side)
    inputs = {"x": x, "weight": torch.ones(FEATURES, 6), "bias": torch.zeros(FEATURES)}
    inputs = {name: t.to(backend.device) for name, t in inputs.items()}
    results = with_gradients(backend, inputs, torch.ones(2, FEATURES, device=backend.device))
    assert not any(result.any() for result in results.values())
    assert not backend(**inputs).any()


@every_backend
@pytest.mark.parametrize("bias", [-1, -2, -2.5])
@pytest.mark.parametrize("side", FEW_MAPS, ids=str)
def test_means_of_relus_are_never_negative(backend, side, bias):
    inputs = inputs_of_one_bias((2, 16, *side), bias)
    inputs = {name: t.to(backend.device) for name, t in inputs.items()}
    gradient = torch.ones(2, FEATURES, device=backend.device)
    assert with_gradients(backend, inputs, gradient)["output"].min() >= 0
    assert backend(**inputs).min() >= 0


@dataclass(frozen=True)
class SixteenBit:
    """A comparison of errors in 16 bits, of enough columns for the errors to be no luck.

    At a bias of -2 most of what a gradient is off by are gates decided by a rounding, a few in ten
    thousand columns.
    """

    shape: tuple[int, int, int, int]
    features: int
    bias: float
    dtype: torch.dtype

    def errors(self, function: Any, device: str) -> dict[str, float]:
        inputs = random_inputs(self.shape, self.features, dtype=self.dtype)
        inputs["bias"] = torch.full((self.features,), self.bias, dtype=self.dtype)
        inputs = {name: t.to(device) for name, t in inputs.items()}
        gradient = random_gradient((self.shape[0], self.features), self.dtype).to(device)
        found = errors(function, inputs, gradient)
        oracle = lca_reference(*(t.double() for t in inputs.values()))
        return found | {"inference": relative_error(function(**inputs), oracle)}


@cache
def errors_of_the_reference(case: SixteenBit) -> dict[str, float]:
    return case.errors(lca_reference, "cpu")


@every_backend
@not_interpreted
@pytest.mark.slow
@pytest.mark.parametrize("dtype", SIXTEEN_BIT, ids=str)
@pytest.mark.parametrize("bias", [0, -1, -2])
@pytest.mark.parametrize(
    ("shape", "features"),
    [((2, 32, 7, 7), 512), ((1, 16, 14, 14), 512), ((1, 8, 28, 28), 32)],
    ids=["7x7", "14x14", "28x28"],
)
def test_16_bit_errors_are_at_most_twice_those_of_the_reference(
    backend, shape, features, bias, dtype
):
    case = SixteenBit(shape, features, bias, dtype)
    ours, theirs = case.errors(backend, backend.device), errors_of_the_reference(case)
    assert all(ours[name] <= 2 * theirs[name] for name in ours), (ours, theirs)


@every_backend
@pytest.mark.parametrize("position", [(0, 0), (1, 2), (2, 3)], ids=str)
@pytest.mark.parametrize("kernel_sizes", [None, [(1, 1)]], ids=str)
@pytest.mark.parametrize("value", [1e30, float("nan")], ids=["infinite projection", "nan"])
def test_infinite_projections_and_nan_give_nan(backend, kernel_sizes, position, value):
    x, weight = torch.randn(2, 3, 3, 4), torch.randn(4, 3)
    where = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    if value == 1e30:
        x[:, 0] = 0
        weight[:, 0] = torch.tensor([0, 1e30, -1e30, 1])  # times x: 0, inf, -inf, 1e30
        where[0] = torch.tensor([0, 1, 1, 0])
    x[0, 0, position[0], position[1]] = value
    x, weight = x.to(backend.device), weight.to(backend.device)
    for x_of_mode in (x, x.clone().requires_grad_()):  # inference, training
        output = backend(x=x_of_mode, weight=weight, kernel_sizes=kernel_sizes).cpu()
        assert torch.equal(output.isnan(), where), output
        assert output[~where].isfinite().all()
