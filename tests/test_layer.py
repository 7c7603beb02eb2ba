"""LCA as a module: parameters, initialisation, state, printing, what it refuses."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lca_fused import LCA, local_concepts_accumulation
from reference.lca import lca_reference
from tests.parity import random_gradient, relative_error, with_gradients

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def feature_map(channels: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, 4, 5, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel_sizes", [None, [(2, 2), (1, 3)]])
def test_agrees_with_the_reference_and_so_do_its_gradients(kernel_sizes, bias):
    layer = LCA(3, 6, bias, kernel_sizes=kernel_sizes, dtype=torch.float64)
    x, gradient = feature_map(), random_gradient((2, 6))
    parameters = dict(layer.named_parameters())

    def ours(x, **parameters):
        return torch.func.functional_call(layer, parameters, x)

    def theirs(x, weight, bias=None):
        return lca_reference(x, weight, bias, kernel_sizes)

    actual = with_gradients(ours, {"x": x, **parameters}, gradient)
    expected = with_gradients(theirs, {"x": x, **parameters}, gradient)
    assert set(expected) == {"output", "x", "weight", "bias"} - (set() if bias else {"bias"})
    for name in expected:
        assert relative_error(actual[name], expected[name]) <= 1e-12, name


def test_maps_of_any_size_may_follow_each_other():
    layer = LCA(3, 6)
    for n, height, width in [(2, 7, 7), (1, 1, 2), (3, 12, 5), (0, 4, 4)]:
        x = torch.randn(n, 3, height, width)
        output = layer(x)
        assert output.shape == (n, 6)
        torch.testing.assert_close(output, lca_reference(x, layer.weight, layer.bias))


def test_state_dict_is_that_of_a_linear_layer():
    assert list(LCA(3, 6).state_dict()) == ["weight", "bias"]
    assert list(LCA(3, 6, bias=False).state_dict()) == ["weight"]


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layers_state_loads(bias):
    linear, layer = nn.Linear(3, 6, bias=bias), LCA(3, 6, bias)
    layer.load_state_dict(linear.state_dict())
    x = feature_map(dtype=torch.float32)
    expected = lca_reference(x, linear.weight, linear.bias)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_initialised_as_a_linear_layer_with_the_same_seed(bias):
    torch.manual_seed(3)
    linear = nn.Linear(5, 7, bias=bias)
    torch.manual_seed(3)
    layer = LCA(5, 7, bias)
    assert torch.equal(layer.weight, linear.weight)
    assert layer.bias is None if not bias else torch.equal(layer.bias, linear.bias)


def test_reset_parameters_draws_all_of_them_anew():
    torch.manual_seed(3)
    layer = LCA(5, 7)
    before = layer.weight.clone(), layer.bias.clone()
    layer.reset_parameters()
    assert (layer.weight != before[0]).all()
    assert (layer.bias != before[1]).all()


def test_device_and_dtype_are_those_asked_for():
    layer = LCA(3, 6, device="meta", dtype=torch.bfloat16)
    for parameter in layer.parameters():
        assert parameter.device.type == "meta"
        assert parameter.dtype == torch.bfloat16


def test_kernel_sizes_are_kept_sorted_and_used():
    layer = LCA(3, 6, kernel_sizes=((k, 3 - k) for k in (2, 1)), dtype=torch.float64)
    assert layer.kernel_sizes == ((1, 2), (2, 1))
    expected = lca_reference(feature_map(), layer.weight, layer.bias, [(1, 2), (2, 1)])
    for _ in range(2):
        torch.testing.assert_close(layer(feature_map()), expected)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (LCA(3), "LCA(in_features=3, out_features=3, bias=True, backend='auto')"),
        (
            LCA(3, 6, bias=False, kernel_sizes=[(2, 1)], backend="eager"),
            "LCA(in_features=3, out_features=6, bias=False, kernel_sizes=[(2, 1)], "
            "backend='eager')",
        ),
    ],
)
def test_prints_as_the_call_that_makes_it(layer, text):
    assert repr(layer) == text
    assert repr(eval(text, {"LCA": LCA})) == text


@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["copy", "pickle"],
)
def test_copies_compute_the_same_and_share_nothing(clone):
    layer = LCA(3, 6, kernel_sizes=[(2, 2), (1, 3)], backend="eager")
    x = torch.randn(2, 3, 4, 5)
    expected = layer(x)
    copied = clone(layer)
    assert repr(copied) == repr(layer)
    with torch.no_grad():
        layer.weight.zero_()
    assert torch.equal(copied(x), expected)


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize(("n", "features"), [(1, 5), (2, 5), (2, 16)])
def test_what_follows_the_layer_may_change_its_output_in_place(n, features, backend):
    layer, x = LCA(3, features, backend=backend), torch.randn(n, 3, 4, 5)
    (expected,) = torch.autograd.grad(2 * layer(x).sum(), layer.weight)
    (gradient,) = torch.autograd.grad(layer(x).mul_(2).sum(), layer.weight)
    assert torch.equal(gradient, expected)


def test_the_backend_is_handed_on(monkeypatch):
    seen = []

    def spy(*arguments, **keywords):
        seen.append(keywords["backend"])
        return local_concepts_accumulation(*arguments, **keywords)

    monkeypatch.setattr("lca_fused.layer.local_concepts_accumulation", spy)
    LCA(3, backend="eager")(torch.zeros(1, 3, 2, 2))
    assert seen == ["eager"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"in_features": 0}, ValueError, "in_features is 0 and out_features is 0; both must be"),
        ({"in_features": 3, "out_features": -1}, ValueError, "out_features is -1; both must be"),
        ({"in_features": 3, "backend": "fast"}, ValueError, "backend is 'fast'; expected one of"),
        ({"in_features": 3, "kernel_sizes": []}, ValueError, "kernel_sizes is empty"),
        ({"in_features": 3, "kernel_sizes": [(2, 2), (2, 2)]}, ValueError, "more than once"),
        ({"in_features": 3, "kernel_sizes": [(0, 2)]}, ValueError, "each side must be at least 1"),
        ({"in_features": 3, "kernel_sizes": [2]}, TypeError, "expected pairs of integers"),
        ({"in_features": 3, "kernel_sizes": 2}, TypeError, "kernel_sizes is 2; expected pairs"),
    ],
)
def test_arguments_that_make_no_layer_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        LCA(**arguments)


def test_kernel_sizes_that_do_not_fit_the_map_are_refused_at_the_call():
    layer = LCA(3, 6, kernel_sizes=[(5, 1)])
    with pytest.raises(ValueError, match=r"\[\(5, 1\)\] do not fit the 4x5 feature map"):
        layer(torch.zeros(2, 3, 4, 5))
