"""The eager backend against the reference: values, derivatives of every kind, memory, rounding."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lca_fused import local_concepts_accumulation
from lca_fused.backends import eager
from lca_fused.rectangles import num_rectangles, resolve_kernel_sizes
from reference.lca import lca_reference
from tests.parity import (
    GRADIENT_LAYOUTS,
    LAYOUTS,
    errors,
    random_gradient,
    random_inputs,
    with_gradients,
)

pytestmark = pytest.mark.usefixtures("poisoned_memory")

lca = partial(local_concepts_accumulation, backend="eager")
sides = st.integers(1, 9)


def assert_within(tolerance: float, measured: dict[str, float]) -> None:
    assert all(error <= tolerance for error in measured.values()), measured


@settings(max_examples=150)
@given(n=st.integers(0, 3), c=sides, d=sides, h=sides, w=sides, data=st.data())
def test_float64_agrees_with_the_reference_for_any_shape_and_kernel_sizes(n, c, d, h, w, data):
    pairs = st.tuples(st.integers(1, h), st.integers(1, w))
    choices = st.none() | st.lists(pairs, min_size=1, max_size=5, unique=True)
    kernel_sizes = data.draw(choices, "kernel_sizes")
    assume(kernel_sizes is not None or (h, w) != (1, 1))
    bias = data.draw(st.booleans(), "bias")
    inputs = random_inputs((n, c, h, w), d, seed=data.draw(st.integers(0, 99), "seed"), bias=bias)
    function = partial(lca, kernel_sizes=kernel_sizes)
    assert_within(1e-12, errors(function, inputs, random_gradient((n, d)), kernel_sizes))


@pytest.mark.parametrize("side", [13, 14])
def test_float64_agrees_with_the_reference_on_large_maps(side):
    inputs = random_inputs((2, 5, side, side), 6)
    assert_within(1e-12, errors(lca, inputs, random_gradient((2, 6))))


@pytest.mark.parametrize("kernel_sizes", [None, [(1, 1), (2, 3), (4, 1)]])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gradient_layout", GRADIENT_LAYOUTS)
def test_any_strides_of_x_and_of_the_gradient_are_right(layout, gradient_layout, kernel_sizes):
    inputs = random_inputs((3, 4, 5, 6), 7)
    inputs["x"] = LAYOUTS[layout](inputs["x"])
    gradient = GRADIENT_LAYOUTS[gradient_layout](random_gradient((3, 7)))
    function = partial(lca, kernel_sizes=kernel_sizes)
    assert_within(1e-12, errors(function, inputs, gradient, kernel_sizes))


@settings(max_examples=60)
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    gradient_layout=st.sampled_from(sorted(GRADIENT_LAYOUTS)),
    shape=st.tuples(st.integers(1, 3), sides, st.integers(2, 6), sides),
    d=sides,
)
def test_strides_of_x_and_of_the_gradient_combine(layout, gradient_layout, shape, d):
    inputs = random_inputs(shape, d)
    inputs["x"] = LAYOUTS[layout](inputs["x"])
    gradient = GRADIENT_LAYOUTS[gradient_layout](random_gradient((shape[0], d)))
    assert_within(1e-12, errors(lca, inputs, gradient))


@pytest.mark.parametrize(
    ("shape", "d"),
    [
        ((4, 64, 7, 7), 64),
        ((2, 32, 12, 5), 32),
        ((2, 16, 14, 14), 16),
        ((1, 8, 28, 28), 16),
    ],
)
def test_float32_stays_within_2e_6_of_the_float64_reference(shape, d):
    inputs = random_inputs(shape, d, dtype=torch.float32)
    gradient = random_gradient((shape[0], d), torch.float32)
    assert_within(2e-6, errors(lca, inputs, gradient))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 32, 7, 7), (2, 32, 12, 5), (2, 16, 14, 14)])
def test_16_bit_errors_are_at_most_twice_those_of_the_reference_in_that_dtype(shape, dtype):
    inputs = random_inputs(shape, 24, dtype=dtype)
    gradient = random_gradient((shape[0], 24), dtype)
    ours = errors(lca, inputs, gradient)
    theirs = errors(lca_reference, inputs, gradient)
    assert all(ours[name] <= 2 * theirs[name] for name in theirs), (ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_projections_are_pooled_in_float32_and_rounded_once(dtype):
    x = random_inputs((2, 8, 14, 14), 8, dtype=dtype)["x"]
    identity = torch.eye(8, dtype=dtype)  # a projection without rounding
    expected = lca(x.float(), identity.float())
    assert torch.equal(lca(x, identity), expected.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_output_and_gradients_keep_the_dtype_of_the_inputs(dtype):
    inputs = random_inputs((2, 3, 4, 5), 6, dtype=dtype)
    for name, value in with_gradients(lca, inputs, random_gradient((2, 6), dtype)).items():
        assert value.dtype == dtype, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_forward_pass_without_gradients_agrees_with_the_one_that_keeps_them(dtype):
    inputs = random_inputs((2, 8, 7, 6), 9, dtype=dtype)
    kept = lca(**{name: t.requires_grad_() for name, t in inputs.items()})
    with torch.no_grad():
        plain = lca(**inputs)
    torch.testing.assert_close(plain, kept.detach())


def test_runs_are_bitwise_repeatable():
    inputs = random_inputs((3, 16, 7, 9), 20, dtype=torch.float32)
    gradient = random_gradient((3, 20), torch.float32)
    first, second = (with_gradients(lca, inputs, gradient) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with torch.no_grad():
        assert torch.equal(lca(**inputs), lca(**inputs))


@pytest.mark.parametrize("columns", [1, 3, 7, 16, 25])
def test_chunks_of_a_few_columns_change_nothing(monkeypatch, columns):
    inputs = random_inputs((5, 4, 6, 5), 7)
    gradient = random_gradient((5, 7))
    whole = with_gradients(lca, inputs, gradient)
    with torch.no_grad():
        whole_plain = lca(**inputs)
    monkeypatch.setattr(eager, "_CHUNK_BYTES", {"cpu": columns * 6 * 5 * 8})
    assert len(list(eager._chunks(torch.empty(5, 6, 5, 7, dtype=torch.float64)))) > 1
    chunked = with_gradients(lca, inputs, gradient)
    for name in whole:
        torch.testing.assert_close(chunked[name], whole[name], rtol=1e-13, atol=1e-15)
    with torch.no_grad():
        torch.testing.assert_close(lca(**inputs), whole_plain, rtol=1e-13, atol=1e-15)


@given(
    n=st.integers(0, 5),
    h=st.integers(1, 4),
    w=st.integers(1, 4),
    d=st.integers(1, 9),
    columns=st.integers(1, 50),
)
def test_chunks_cover_every_column_once_within_the_budget(n, h, w, d, columns):
    projection = torch.zeros(n, h, w, d)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, "_CHUNK_BYTES", {"cpu": columns * h * w * 4})
        for rows, features in eager._chunks(projection):
            chunk = projection[rows, ..., features]
            assert chunk.shape[0] * chunk.shape[3] <= columns
            chunk += 1
    assert (projection == 1).all()


def test_training_saves_one_gate_map_and_nothing_that_grows_with_the_rectangles():
    n, c, d, side = 2, 6, 8, 14
    inputs = random_inputs((n, c, side, side), d, dtype=torch.float32)
    saved = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        lca(**{name: t.requires_grad_() for name, t in inputs.items()})
    gate_map = 4 * n * d * side * side
    linear = 4 * (n * c * side * side + d * c)
    assert gate_map <= sum(saved.values()) <= gate_map + linear
    rectangles = num_rectangles(side, side, resolve_kernel_sizes(side, side))
    assert sum(saved.values()) < 4 * n * d * rectangles / 20


def clear_of_kinks(
    shape: tuple[int, int, int, int], d: int, margin: float = 2e-3
) -> tuple[Tensor, ...]:
    """Inputs no rectangle of which is within `margin` of the ReLU's kink."""
    for seed in range(1000):
        inputs = random_inputs(shape, d, seed=seed)
        rectangles = [
            torch.nn.functional.avg_pool2d(inputs["x"], size, stride=1).flatten(2).mT
            for size in resolve_kernel_sizes(*shape[2:])
        ]
        z = torch.nn.functional.linear(
            torch.cat(rectangles, dim=1), inputs["weight"], inputs["bias"]
        )
        if z.abs().min() > margin and (z > 0).any() and (z < 0).any():
            return tuple(t.requires_grad_() for t in inputs.values())
    raise AssertionError("no seed is clear of the kinks; lower the margin or the size")


@pytest.mark.parametrize("shape", [(2, 2, 3, 3), (1, 3, 2, 4), (2, 3, 1, 5)])
def test_first_derivatives_agree_with_finite_differences(shape):
    inputs = clear_of_kinks(shape, 2)
    assert torch.autograd.gradcheck(
        lca, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )


@pytest.mark.parametrize("shape", [(2, 2, 3, 2), (1, 2, 1, 4)])
def test_second_derivatives_agree_with_finite_differences(shape):
    inputs = clear_of_kinks(shape, 2)
    assert torch.autograd.gradgradcheck(
        lca, inputs, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )


def penalty(function, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A scalar that is not piecewise linear in anything."""
    return function(x, weight, bias).square().sum()


def test_func_jvp_agrees_with_the_reference():
    inputs = tuple(random_inputs((2, 3, 4, 4), 5).values())
    tangents = tuple(random_inputs((2, 3, 4, 4), 5, seed=1).values())
    actual = torch.func.jvp(lca, inputs, tangents)
    expected = torch.func.jvp(lca_reference, inputs, tangents)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


def test_jvp_of_inputs_that_want_a_gradient_agrees_with_the_reference():
    inputs = tuple(t.requires_grad_() for t in random_inputs((2, 3, 4, 4), 5).values())
    tangents = tuple(random_inputs((2, 3, 4, 4), 5, seed=1).values())
    with torch.autograd.forward_ad.dual_level():
        duals = map(torch.autograd.forward_ad.make_dual, inputs, tangents)
        output = torch.autograd.forward_ad.unpack_dual(lca(*duals))
    expected = torch.func.jvp(lca_reference, tuple(t.detach() for t in inputs), tangents)
    torch.testing.assert_close(
        (output.primal.detach(), output.tangent.detach()), expected, rtol=1e-11, atol=1e-13
    )


@pytest.mark.parametrize(
    "in_dims", [(0, None, None), (None, 0, 0), (0, 0, 0), (1, None, 0), (None, 1, None)]
)
@pytest.mark.parametrize("wants_gradient", [False, True])
def test_vmap_agrees_with_a_loop(in_dims, wants_gradient):
    copies = [random_inputs((2, 3, 4, 4), 5, seed=seed) for seed in range(3)]
    stacked = [
        torch.stack([copy[name] for copy in copies], dim=dim)
        if dim is not None
        else copies[0][name]
        for name, dim in zip(copies[0], in_dims, strict=True)
    ]
    stacked = [t.requires_grad_(wants_gradient) for t in stacked]
    expected = torch.stack(
        [
            lca_reference(
                *(
                    t if dim is None else t.select(dim, i)
                    for t, dim in zip(stacked, in_dims, strict=True)
                )
            )
            for i in range(3)
        ]
    )
    actual = torch.vmap(lca, in_dims)(*stacked)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)
    if wants_gradient:
        gradients = [
            torch.autograd.grad(output.square().sum(), stacked) for output in (actual, expected)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dim", range(5))
def test_vmap_over_any_dimension_of_the_projection_agrees_with_a_loop(dim):
    pool = partial(eager.rectangle_pooling, kernel_sizes=resolve_kernel_sizes(3, 4))
    gradient = torch.func.grad(lambda projection: pool(projection).square().sum())
    stacked = random_gradient((3, 2, 3, 4, 5))
    for function in (pool, gradient):
        expected = torch.stack([function(projection) for projection in stacked])
        actual = torch.vmap(function, dim)(stacked.movedim(0, dim))
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_per_sample_gradients_agree_with_a_loop():
    x, weight, bias = random_inputs((4, 3, 3, 4), 5).values()

    def loss(weight: Tensor, bias: Tensor, image: Tensor, function=lca) -> Tensor:
        return function(image[None], weight, bias).square().sum()

    actual = torch.vmap(torch.func.grad(loss, (0, 1)), (None, None, 0))(weight, bias, x)
    rows = [
        torch.func.grad(partial(loss, function=lca_reference), (0, 1))(weight, bias, image)
        for image in x
    ]
    expected = tuple(torch.stack(column) for column in zip(*rows, strict=True))
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("argnum", [0, 1, 2])
@pytest.mark.parametrize(
    "hessian", [torch.func.hessian, None], ids=["fwd_over_rev", "rev_over_rev"]
)
def test_hessians_agree_with_the_reference(argnum, hessian):
    inputs = tuple(random_inputs((1, 2, 3, 3), 3).values())
    if hessian is None:

        def hessian(function, argnum):
            return torch.func.jacrev(torch.func.jacrev(function, argnum), argnum)

    actual = hessian(partial(penalty, lca), argnum)(*inputs)
    expected = torch.autograd.functional.hessian(
        lambda t: penalty(lca_reference, *inputs[:argnum], t, *inputs[argnum + 1 :]), inputs[argnum]
    )
    assert expected.count_nonzero() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)
