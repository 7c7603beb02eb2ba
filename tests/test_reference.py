"""The oracle does what the paper says, checked by a loop over rectangles in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reference.lca import lca_reference
from reference.loss import max_entropy_loss_reference
from tests.parity import random_inputs


def rectangles(height: int, width: int, kernel_sizes=None):
    """All (top, bottom, left, right), ends not included, but those of one position."""
    for top in range(height):
        for bottom in range(top + 1, height + 1):
            for left in range(width):
                for right in range(left + 1, width + 1):
                    size = (bottom - top, right - left)
                    if size != (1, 1) if kernel_sizes is None else size in kernel_sizes:
                        yield top, bottom, left, right


def lca_by_loops(x: Tensor, weight: Tensor, bias: Tensor | None, kernel_sizes=None) -> Tensor:
    x, weight = x.tolist(), weight.tolist()
    bias = [0.0] * len(weight) if bias is None else bias.tolist()
    height, width = len(x[0][0]), len(x[0][0][0])
    places = list(rectangles(height, width, kernel_sizes))
    output = []
    for image in x:
        sums = [0.0] * len(weight)
        for top, bottom, left, right in places:
            concept = [
                math.fsum(value for row in channel[top:bottom] for value in row[left:right])
                / ((bottom - top) * (right - left))
                for channel in image
            ]
            for d, (row, offset) in enumerate(zip(weight, bias, strict=True)):
                sums[d] += max(0.0, math.fsum(map(float.__mul__, row, concept)) + offset)
        output.append([total / len(places) for total in sums])
    return torch.tensor(output, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("height", "width", "kernel_sizes"),
    [
        (3, 4, None),
        (1, 5, None),
        (4, 1, None),
        (2, 2, None),
        (3, 4, [(1, 1)]),
        (3, 4, [(3, 4)]),
        (3, 4, [(2, 3), (1, 2), (3, 1)]),
    ],
)
def test_reference_is_the_mean_over_all_rectangles(height, width, kernel_sizes, bias):
    inputs = random_inputs((2, 3, height, width), 4, bias=bias)
    expected = lca_by_loops(*inputs.values(), kernel_sizes)
    torch.testing.assert_close(
        lca_reference(**inputs, kernel_sizes=kernel_sizes), expected, rtol=1e-12, atol=1e-14
    )


def test_a_one_hot_map_counts_the_rectangles_that_hold_its_position():
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    x[0, 0, 0, 1] = 1
    # Of the rectangles of a 2x2 map, two of area 2 and one of area 4 hold a corner; two do not.
    expected = (1 / 2 + 1 / 2 + 1 / 4) / 5
    assert lca_reference(x, torch.ones(1, 1, dtype=torch.float64)).item() == pytest.approx(expected)


def test_a_constant_map_gives_the_relu_of_its_projection():
    x = torch.full((1, 1, 5, 6), 2.0)
    weight = torch.tensor([[1.5], [-1.5]])
    torch.testing.assert_close(lca_reference(x, weight), torch.tensor([[3.0, 0.0]]))


def loss_by_hand(logits: list[float], target: list[float], gamma: float, weight: float) -> float:
    total = math.fsum(math.exp(z) for z in logits)
    p = [math.exp(z) / total for z in logits]
    nll = -math.fsum(t * math.log(q) for t, q in zip(target, p, strict=True))
    divergence = math.fsum(t * math.log(t / q) for t, q in zip(target, p, strict=True) if t > 0)
    entropy = -math.fsum(q * math.log(q) for q in p)
    return (1 - weight) * nll + weight * (divergence - gamma * entropy)


@pytest.mark.parametrize(("gamma", "weight"), [(1.0, 0.5), (0.0, 0.5), (0.3, 1.0), (2.0, 0.0)])
def test_reference_loss_is_the_papers_formula(gamma, weight):
    logits = [[0.2, -1.0, 3.0], [2.0, 2.0, -0.5]]
    target = [[0.0, 0.25, 0.75], [0.0, 1.0, 0.0]]
    expected = [loss_by_hand(*row, gamma, weight) for row in zip(logits, target, strict=True)]
    actual = max_entropy_loss_reference(
        torch.tensor(logits, dtype=torch.float64),
        torch.tensor(target, dtype=torch.float64),
        gamma,
        weight,
    )
    assert actual.tolist() == pytest.approx(expected, rel=1e-12)
