"""torch.func over the layer and the loss, torch.fx over the loss, and devices without float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lca_fused import LCA, MaxEntropyLoss, attach_lca, explain

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
INDICES = torch.tensor([0, 3, 1, 1, 2, 0])
TARGETS = {"indices": INDICES, "probabilities": LOGITS.flip(0).softmax(1)}
LOSSES = [
    MaxEntropyLoss(),
    MaxEntropyLoss(0.3, 0.7, label_smoothing=0.1),
    MaxEntropyLoss(reduction="sum", class_weights=torch.tensor([1.0, 2.0, 0.0, 3.0])),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_losses_and_their_gradients_of_single_samples_are_those_of_the_batch(loss, target):
    def one(logits: Tensor, sample: Tensor) -> Tensor:
        return loss(logits[None], sample[None])

    targets = TARGETS[target]
    apart = [one(*sample) for sample in zip(LOGITS, targets, strict=True)]
    torch.testing.assert_close(torch.vmap(one)(LOGITS, targets), torch.stack(apart), equal_nan=True)
    gradients = torch.vmap(torch.func.grad(one))(LOGITS, targets)
    expected = [torch.func.grad(one)(*sample) for sample in zip(LOGITS, targets, strict=True)]
    torch.testing.assert_close(gradients, torch.stack(expected), equal_nan=True)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_forward_mode_and_second_derivatives_of_the_loss_agree_with_reverse_mode(loss, target):
    def value(logits: Tensor) -> Tensor:
        return loss(logits, TARGETS[target])

    tangent = LOGITS.roll(1)
    _, directional = torch.func.jvp(value, (LOGITS,), (tangent,))
    torch.testing.assert_close(directional, (torch.func.grad(value)(LOGITS) * tangent).sum())
    twice_reverse = torch.autograd.functional.hessian(value, LOGITS)
    torch.testing.assert_close(torch.func.hessian(value)(LOGITS), twice_reverse)


def test_gradients_of_single_samples_of_a_whole_model():
    model = nn.Sequential(LCA(3, 5), nn.Linear(5, 4)).double()
    loss, maps = MaxEntropyLoss(), torch.randn(6, 3, 3, 4, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def one(parameters: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        return loss(torch.func.functional_call(model, parameters, (x[None],)), target[None])

    gradients = torch.vmap(torch.func.grad(one), (None, 0, 0))(parameters, maps, INDICES)
    for index, (x, target) in enumerate(zip(maps, INDICES, strict=True)):
        model.zero_grad()
        loss(model(x[None]), target[None]).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][index], parameter.grad)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize(
    "trace",
    [
        lambda loss, *_: torch.fx.symbolic_trace(loss),
        lambda loss, *given: make_fx(loss, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
            *given
        ),
    ],
    ids=["fx", "make_fx"],
)
def test_the_loss_is_traced_for_batches_of_any_size(trace, loss, target):
    graph = trace(loss, LOGITS[:2], TARGETS[target][:2])
    torch.testing.assert_close(graph(LOGITS, TARGETS[target]), loss(LOGITS, TARGETS[target]))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_weights_are_those_of_cross_entropy(reduction):
    weights = torch.tensor([1.0, 2.0, 0.0, 3.0], dtype=torch.float64)
    loss = MaxEntropyLoss(weight=0, reduction=reduction, class_weights=weights)
    expected = F.cross_entropy(LOGITS, INDICES, weights, reduction=reduction)
    torch.testing.assert_close(loss(LOGITS, INDICES), expected)
    certain = F.one_hot(INDICES, 4).double()
    torch.testing.assert_close(loss(LOGITS, certain), expected)
    assert list(loss.state_dict()) == ["class_weights"]
    assert list(MaxEntropyLoss().state_dict()) == []


def test_equal_class_weights_change_nothing():
    weights = torch.full((4,), 2.0)
    expected = MaxEntropyLoss(0.5, 0.4, label_smoothing=0.1)(LOGITS, INDICES)
    weighted = MaxEntropyLoss(0.5, 0.4, label_smoothing=0.1, class_weights=weights)
    torch.testing.assert_close(weighted(LOGITS, INDICES), expected)


@pytest.mark.parametrize("weights", [torch.ones(3), np.ones(3), [1.0, 1.0, 1.0]])
def test_class_weights_in_place_of_the_share_are_refused_with_the_right_name(weights):
    with pytest.raises(TypeError, match=r"weight is a .*; expected a number, .* class_weights="):
        MaxEntropyLoss(weight=weights)


@pytest.mark.parametrize(
    "weights", [torch.ones(2, 2), torch.tensor([1.0, -1.0]), torch.ones(2, dtype=torch.int64)]
)
def test_class_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match=r"class_weights has shape .* none below 0"):
        MaxEntropyLoss(class_weights=weights)


def test_class_weights_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"class_weights has shape \(3,\); expected .* \(4,\)"):
        MaxEntropyLoss(class_weights=torch.ones(3))(LOGITS, INDICES)


def test_numbers_of_numpy_are_numbers():
    loss = MaxEntropyLoss(np.float32(0.5), np.array(0.25), label_smoothing=np.float64(0.125))
    assert repr(loss) == repr(MaxEntropyLoss(0.5, 0.25, label_smoothing=0.125))


def test_a_tensor_as_gamma_stays_one_and_learns():
    gamma = torch.tensor(0.5, requires_grad=True)
    loss = MaxEntropyLoss(gamma, 0.25)(LOGITS, INDICES)
    loss.backward()
    torch.testing.assert_close(loss.detach(), MaxEntropyLoss(0.5, 0.25)(LOGITS, INDICES))
    entropy = torch.special.entr(LOGITS.softmax(1)).sum(1).mean()
    torch.testing.assert_close(gamma.grad.double(), -0.25 * entropy)


class NoFloat64(TorchDispatchMode):
    """Refuses float64, as Apple's GPUs do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.float64:
                raise TypeError(f"{function}: the device has no float64")
        return output


def test_training_and_explaining_need_no_float64():
    with NoFloat64():
        model = attach_lca(nn.Conv2d(3, 4, 8, 8), 5, dropout=0.5)
        logits = model(torch.randn(2, 3, 32, 32))
        for target in (torch.tensor([0, 4]), torch.full((2, 5), 0.2)):
            MaxEntropyLoss(label_smoothing=0.1)(logits, target).backward(retain_graph=True)
        explanation = explain(model, torch.randn(2, 3, 32, 32))
        assert len(explanation.top_rectangles(0, k=2)) <= 2
    assert math.isfinite(model.lca.weight.grad.sum())


class WithoutFloat64(Tensor):
    """A tensor that becomes float64 on the CPU alone."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is Tensor.double or (func is Tensor.to and torch.float64 in args[1:]):
            raise TypeError("the device has no float64")
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_heat_maps_are_drawn_from_devices_without_float64():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    from lca_fused.explanation_plots import draw_heat_map

    explanation = explain(nn.Sequential(LCA(3, 4), nn.Linear(4, 2)), torch.randn(1, 3, 6, 6))
    positions = explanation.positions
    object.__setattr__(explanation, "positions", positions.as_subclass(WithoutFloat64))
    drawn = draw_heat_map(figure.subplots(), np.zeros((6, 6, 3), np.uint8), explanation, 0)
    torch.testing.assert_close(torch.as_tensor(drawn.get_array().data).float(), positions[0])
