"""The formulation of LCA for onnxruntime against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from experiments.deploy.onnx_lca import FixedSizeLCA
from lca_fused import LCA
from reference.lca import lca_reference
from tests.parity import relative_error

MAPS = [(7, 7), (1, 2), (2, 1), (1, 9), (5, 3), (4, 6), (13, 13)]
KERNEL_SIZES = [
    [(1, 1)],
    [(7, 7)],
    [(1, 2), (5, 3)],  # a fraction of their grid: single sizes
    [(2, 2), (2, 3), (4, 2), (4, 3)],  # a full grid
    [(2, 2), (2, 3), (4, 2)],  # a grid less one
    [(kh, kw) for kh in range(1, 8) for kw in range(1, 8)],  # 1x1 among them
]


def layer(channels: int = 5, features: int = 8, **options) -> LCA:
    torch.manual_seed(0)
    return LCA(channels, features, **options)


def reference(lca: LCA, x: Tensor) -> Tensor:
    bias = None if lca.bias is None else lca.bias.detach().double()
    return lca_reference(x.double(), lca.weight.detach().double(), bias, lca.kernel_sizes)


@pytest.mark.parametrize("map_size", MAPS, ids=str)
def test_equals_the_reference_on_maps_of_every_shape(map_size):
    lca, x = layer(), torch.randn(3, 5, *map_size)
    fixed = FixedSizeLCA(lca, map_size)
    assert fixed(x).shape == (3, 8)
    assert relative_error(fixed(x), reference(lca, x)) < 2e-6


@pytest.mark.parametrize("map_size", MAPS, ids=str)
def test_is_the_same_function_but_for_rounding(map_size):
    lca, x = layer(dtype=torch.float64), torch.randn(2, 5, *map_size, dtype=torch.float64)
    assert relative_error(FixedSizeLCA(lca, map_size)(x), reference(lca, x)) < 1e-13


def test_equals_the_reference_without_bias():
    lca, x = layer(bias=False), torch.randn(2, 5, 7, 7)
    assert relative_error(FixedSizeLCA(lca, (7, 7))(x), reference(lca, x)) < 2e-6


@pytest.mark.parametrize("kernel_sizes", [None, *KERNEL_SIZES], ids=str)
def test_equals_the_reference_whatever_the_sign_of_the_bias(kernel_sizes):
    lca, x = layer(features=41, kernel_sizes=kernel_sizes), torch.randn(2, 5, 7, 7)
    lca.bias.data = torch.linspace(-5, 5, 41)
    expected, given = reference(lca, x), FixedSizeLCA(lca, (7, 7))(x)
    assert relative_error(given, expected) < 2e-6
    dead = expected == 0
    assert dead.any()
    assert not given[dead].any()


def test_features_that_only_unwanted_kernel_sizes_open_are_exactly_zero():
    lca, x = layer(bias=False), -torch.ones(2, 5, 7, 7)
    torch.nn.init.ones_(lca.weight)
    x[..., 3, 3] = 0.5  # open by itself, closed with any neighbour
    assert not reference(lca, x).any()
    assert not FixedSizeLCA(lca, (7, 7))(x).any()


def test_keeps_its_own_copy_of_the_parameters():
    lca, x = layer(), torch.randn(2, 5, 4, 4)
    fixed = FixedSizeLCA(lca, (4, 4))
    before = fixed(x)
    torch.nn.init.zeros_(lca.weight)
    assert torch.equal(fixed(x), before)


def test_kernel_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit the 4x4"):
        FixedSizeLCA(layer(kernel_sizes=[(5, 5)]), (4, 4))
