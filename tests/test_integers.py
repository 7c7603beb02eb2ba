"""Integers of NumPy and of tensors, wherever an integer is taken; what is none is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lca_fused import LCA, attach_lca, explain, local_concepts_accumulation
from lca_fused.integers import as_integer, integer

KINDS = [int, np.int64, np.uint8, np.array, torch.tensor]


@pytest.mark.parametrize("kind", KINDS)
def test_integers_of_every_kind_become_ints(kind):
    assert type(as_integer(kind(3))) is int
    assert integer("k", kind(3)) == 3


@pytest.mark.parametrize(
    "value",
    [
        True,
        np.bool_(True),
        np.array(True),
        torch.tensor(True),
        2.0,
        np.float64(2),
        torch.tensor(2.0),
        "2",
        None,
        np.array([2]),
        torch.tensor([2]),
    ],
    ids=repr,
)
def test_what_is_no_integer_is_refused(value):
    assert as_integer(value) is None
    with pytest.raises(TypeError, match=r"k is .*; expected an integer"):
        integer("k", value)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_and_classifiers_take_them(kind):
    layer = LCA(kind(3), kind(6), kernel_sizes=[(kind(2), kind(1)), (kind(1), kind(2))])
    assert repr(layer) == repr(LCA(3, 6, kernel_sizes=[(2, 1), (1, 2)]))
    model = attach_lca(nn.Conv2d(3, 4, 4, 4), kind(5), out_features=kind(6))
    assert (model.num_classes, model.lca.out_features) == (5, 6)
    model.reset_classifier(kind(2))
    assert repr(model.classifier) == repr(nn.Linear(6, 2))


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_kernel_sizes_may_be_rows_of_an_array(kind):
    x, weight = torch.randn(2, 3, 4, 5), torch.randn(6, 3)
    sizes = [[1, 2], [2, 2]]
    expected = local_concepts_accumulation(x, weight, kernel_sizes=[(1, 2), (2, 2)])
    assert torch.equal(local_concepts_accumulation(x, weight, kernel_sizes=kind(sizes)), expected)


@pytest.mark.parametrize("pair", [(2.0, 1), (True, 1), "12", (1, 2, 3), 5, np.array([1.0, 2.0])])
def test_kernel_sizes_that_are_no_pairs_of_integers_are_refused(pair):
    with pytest.raises(TypeError, match="expected pairs of integers"):
        LCA(3, kernel_sizes=[pair])


@pytest.mark.parametrize("features", [2.0, True, None])
def test_features_that_are_no_integer_are_refused(features):
    with pytest.raises(TypeError, match=r"in_features is .*; expected an integer"):
        LCA(features)


@pytest.mark.parametrize("kind", KINDS)
def test_explanations_take_them(kind):
    model, x = nn.Sequential(LCA(3, 4), nn.Linear(4, 3)), torch.randn(2, 3, 4, 5)
    explanation = explain(model, x, kind(1))
    assert explanation.target.tolist() == [1, 1]
    expected = explain(model, x, 1).top_rectangles(1, 2)
    actual = explanation.top_rectangles(kind(1), kind(2))
    assert torch.equal(actual.contribution, expected.contribution)


@pytest.mark.parametrize("targets", [np.array([2, 0]), [2, 0], (2, 0), torch.tensor([2, 0])])
def test_a_class_for_each_image_may_be_given_in_any_array(targets):
    model, x = nn.Sequential(LCA(3, 4), nn.Linear(4, 3)), torch.randn(2, 3, 4, 5)
    assert explain(model, x, targets).target.tolist() == [2, 0]
