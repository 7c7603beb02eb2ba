"""local_concepts_accumulation: what it accepts and refuses, autocast, compilation, export."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.profiler import ProfilerActivity, profile

from lca_fused import local_concepts_accumulation
from reference.lca import lca_reference
from tests.parity import random_gradient, random_inputs, relative_error, with_gradients

X = torch.zeros(2, 3, 4, 5)
WEIGHT = torch.zeros(6, 3)


def test_kernel_sizes_may_come_in_any_order_and_from_a_generator():
    inputs = random_inputs((2, 3, 4, 5), 6)
    sizes = [(2, 2), (1, 3), (4, 5)]
    first = local_concepts_accumulation(**inputs, kernel_sizes=sizes)
    second = local_concepts_accumulation(**inputs, kernel_sizes=(k for k in reversed(sizes)))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "error", "message"),
    [
        (X.tolist(), WEIGHT, None, TypeError, r"x is a list; expected a torch\.Tensor"),
        (X, None, None, TypeError, r"weight is a NoneType; expected a torch\.Tensor"),
        (X, WEIGHT, 0.0, TypeError, r"bias is a float; expected a torch\.Tensor"),
        (X.long(), WEIGHT, None, TypeError, r"x has dtype torch\.int64; .* x\.float\(\)"),
        (X, WEIGHT.bool(), None, TypeError, r"weight has dtype torch\.bool; expected a floating"),
        (X, WEIGHT, torch.zeros(6).cfloat(), TypeError, r"bias has dtype torch\.complex64"),
        (X[0], WEIGHT, None, ValueError, r"x has shape \(3, 4, 5\); expected a feature map \(N,"),
        (X.mean((2, 3)), WEIGHT, None, ValueError, r"before the backbone's global pooling"),
        (X[:, :0], WEIGHT, None, ValueError, r"x has shape \(2, 0, 4, 5\); C, H and W must be"),
        (X[:, :, :0], WEIGHT, None, ValueError, r"x has shape \(2, 3, 0, 5\); C, H and W must be"),
        (X[..., :0], WEIGHT, None, ValueError, r"x has shape \(2, 3, 4, 0\); C, H and W must be"),
        (X, WEIGHT[:, :2], None, ValueError, r"weight has shape \(6, 2\); expected \(D, 3\)"),
        (X, WEIGHT[0], None, ValueError, r"weight has shape \(3,\); expected \(D, 3\)"),
        (X, WEIGHT, torch.zeros(3), ValueError, r"bias has shape \(3,\); expected \(6,\)"),
        (X, WEIGHT, torch.zeros(6, 1), ValueError, r"bias has shape \(6, 1\); expected \(6,\)"),
        (X[:, :, :1, :1], WEIGHT, None, ValueError, r"a 1x1 feature map has no rectangle"),
        (
            X,
            WEIGHT.to("meta"),
            None,
            ValueError,
            r"x is on cpu and weight on meta; .* x\.to\('meta'\)",
        ),
        (
            X,
            WEIGHT,
            torch.zeros(6).double(),
            TypeError,
            r"float32 and bias torch\.float64; convert one",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(x, weight, bias, error, message):
    with pytest.raises(error, match=message):
        local_concepts_accumulation(x, weight, bias)


@pytest.mark.parametrize(
    ("kernel_sizes", "error", "message"),
    [
        ([], ValueError, "kernel_sizes is empty"),
        ([(5, 5)], ValueError, r"\[\(5, 5\)\] do not fit the 4x5 feature map"),
        ([(2, 2), (2, 2)], ValueError, "more than once"),
        ([2], TypeError, "expected pairs of integers"),
    ],
)
def test_kernel_sizes_that_do_not_fit_are_refused(kernel_sizes, error, message):
    with pytest.raises(error, match=message):
        local_concepts_accumulation(X, WEIGHT, kernel_sizes=kernel_sizes)


def test_unknown_backends_are_refused_before_anything_is_computed():
    with pytest.raises(ValueError, match=r"backend is 'cuda'; expected one of \['auto', 'eager'"):
        local_concepts_accumulation(X, WEIGHT, backend="cuda")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_dtype_of_a_linear_layer(dtype):
    inputs = random_inputs((2, 3, 4, 5), 6, dtype=torch.float32)
    inputs = {name: t.requires_grad_() for name, t in inputs.items()}
    with torch.autocast("cpu", dtype=dtype):
        output = local_concepts_accumulation(**inputs)
        linear = F.linear(inputs["x"].permute(0, 2, 3, 1), inputs["weight"], inputs["bias"])
        rounded = {name: t.detach().to(dtype) for name, t in inputs.items()}
        expected = local_concepts_accumulation(**rounded)
    assert output.dtype == linear.dtype == dtype
    assert torch.equal(output, expected)
    gradients = torch.autograd.grad(output.float().sum(), list(inputs.values()))
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


def test_autocast_takes_a_16_bit_map_and_float32_parameters():
    inputs = random_inputs((2, 3, 4, 5), 6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = local_concepts_accumulation(**inputs | {"x": inputs["x"].bfloat16()})
    assert output.dtype == torch.bfloat16
    assert relative_error(output, lca_reference(**inputs)) < 0.02


def test_autocast_leaves_float64_alone():
    inputs = random_inputs((2, 3, 4, 5), 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert local_concepts_accumulation(**inputs).dtype == torch.float64


@pytest.fixture
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kernel_sizes", [None, [(1, 2), (2, 2), (3, 1)]])
def test_compiles_whole_forward_and_backward(backend, kernel_sizes):
    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return local_concepts_accumulation(x, weight, bias, kernel_sizes=kernel_sizes)

    inputs, gradient = random_inputs((2, 3, 3, 4), 5), random_gradient((2, 5))
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    actual = with_gradients(compiled, inputs, gradient)
    expected = with_gradients(function, inputs, gradient)
    for name in expected:
        assert relative_error(actual[name], expected[name]) <= 1e-12, name


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize(
    "transform",
    [
        lambda function, x: torch.func.grad(lambda x: function(x).square().sum())(x),
        lambda function, x: torch.func.jvp(function, (x,), (x.flip(0),)),
        lambda function, x: torch.vmap(torch.func.jacrev(function))(torch.stack([x, -x])),
    ],
    ids=["grad", "jvp", "vmap of jacrev"],
)
def test_transforms_of_torch_func_are_right_in_compiled_functions(transform):
    x, weight, bias = random_inputs((2, 3, 3, 4), 5).values()
    ours, theirs = (
        partial(transform, lambda x, function=function: function(x, weight, bias))
        for function in (local_concepts_accumulation, lca_reference)
    )
    actual = torch.compile(ours, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(actual, theirs(x), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("backend", ["eager", "numba"])
@pytest.mark.parametrize("trainable", [False, True])
def test_all_positions_are_projected_by_one_matrix_product(backend, trainable):
    if backend == "numba":
        pytest.importorskip("numba")
    x, weight, bias = torch.randn(3, 8, 4, 5), torch.randn(6, 8), torch.randn(6)
    weight.requires_grad_(trainable)
    with profile(activities=[ProfilerActivity.CPU]) as operators, torch.no_grad():
        local_concepts_accumulation(x, weight, bias, backend=backend)
    products = [event.name for event in operators.events() if event.name.endswith("mm")]
    assert products == ["aten::addmm"]


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("trainable", [True, False])
def test_forward_mode_keeps_the_tangent(trainable, compiled):
    inputs = random_inputs((2, 3, 4, 5), 6, dtype=torch.float64)
    inputs = {name: tensor.requires_grad_(trainable) for name, tensor in inputs.items()}
    tangent = torch.randn_like(inputs["x"])
    function = local_concepts_accumulation
    if compiled:
        function = torch.compile(function, backend="eager")
        function(**inputs)  # by kernels, where there are some
    with forward_ad.dual_level():
        dual = inputs | {"x": forward_ad.make_dual(inputs["x"], tangent)}
        found = forward_ad.unpack_dual(function(**dual)).tangent
    _, expected = torch.func.jvp(
        lambda x: lca_reference(x, inputs["weight"], inputs["bias"]), (inputs["x"],), (tangent,)
    )
    assert found is not None
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_gradients_asked_for_all_at_once_are_those_one_by_one(backend):
    inputs = tuple(random_inputs((2, 3, 4, 5), 6).values())
    function = partial(local_concepts_accumulation, backend=backend)
    actual = torch.autograd.functional.jacobian(function, inputs, vectorize=True)
    expected = torch.autograd.functional.jacobian(lca_reference, inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_tensors_without_data_get_their_shape(backend):
    inputs = random_inputs((2, 3, 4, 5), 6, dtype=torch.float32)
    on_meta = {name: tensor.to("meta") for name, tensor in inputs.items()}
    assert local_concepts_accumulation(**on_meta, backend=backend).shape == (2, 6)
    with FakeTensorMode() as mode:
        fakes = {name: mode.from_tensor(tensor) for name, tensor in inputs.items()}
        assert local_concepts_accumulation(**fakes, backend=backend).shape == (2, 6)
