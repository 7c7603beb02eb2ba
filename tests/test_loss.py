"""MaxEntropyLoss: the paper's formula by hand, its special cases, stability, what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lca_fused import MaxEntropyLoss
from reference.loss import max_entropy_loss_reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")

SETTINGS = [(1.0, 0.5), (0.0, 0.5), (0.3, 1.0), (2.0, 0.0), (0.7, 0.2)]
INDICES = torch.tensor([0, 3, 2, 3, 1, 0])


def logits(dtype: torch.dtype = torch.float64, n: int = 6, classes: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)).to(dtype)


def probabilities(n: int = 6, classes: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(n, classes, generator=generator, dtype=torch.float64)
    target[:2, 1:] = 0  # one-hot rows and rows with a zero among them
    target[2, 0] = 0
    return target / target.sum(dim=1, keepdim=True)


def by_hand(row: list[float], target: list[float], gamma: float, weight: float) -> float:
    """The loss of one sample by the definitions of NLL, KL divergence and entropy."""
    largest = max(row)
    log_total = largest + math.log(math.fsum(math.exp(z - largest) for z in row))
    log_p = [z - log_total for z in row]
    nll = -math.fsum(t * lp for t, lp in zip(target, log_p, strict=True))
    divergence = math.fsum(
        t * (math.log(t) - lp) for t, lp in zip(target, log_p, strict=True) if t > 0
    )
    entropy = -math.fsum(math.exp(lp) * lp for lp in log_p)
    return (1 - weight) * nll + weight * (divergence - gamma * entropy)


def smoothed(target: list[float], smoothing: float) -> list[float]:
    return [t * (1 - smoothing) + smoothing / len(target) for t in target]


@pytest.mark.parametrize("target", [INDICES, probabilities()], ids=["indices", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("gamma", "weight"), SETTINGS)
def test_indices_and_probabilities_give_the_formula(gamma, weight, smoothing, target):
    loss = MaxEntropyLoss(gamma, weight, label_smoothing=smoothing, reduction="none")
    shares = target if target.is_floating_point() else F.one_hot(target, 4).double()
    expected = [
        by_hand(row, smoothed(share, smoothing), gamma, weight)
        for row, share in zip(logits().tolist(), shares.tolist(), strict=True)
    ]
    assert loss(logits(), target).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize(("gamma", "weight"), SETTINGS)
def test_agrees_with_the_reference_and_so_does_its_gradient(gamma, weight):
    ours, theirs = (logits().requires_grad_() for _ in range(2))
    actual = MaxEntropyLoss(gamma, weight, reduction="none")(ours, probabilities())
    expected = max_entropy_loss_reference(theirs, probabilities(), gamma, weight)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)
    actual.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gamma_0_with_class_indices_is_cross_entropy(dtype, weight, reduction):
    actual = MaxEntropyLoss(0.0, weight, reduction=reduction)(logits(dtype), INDICES)
    torch.testing.assert_close(actual, F.cross_entropy(logits(dtype), INDICES, reduction=reduction))


@given(
    rows=st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=4),
    gamma=st.floats(0, 3),
    weight=st.floats(0, 1),
    smoothing=st.floats(0, 0.9),
    data=st.data(),
)
def test_class_indices_and_one_hot_probabilities_agree(rows, gamma, weight, smoothing, data):
    indices = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    z, target = torch.tensor(rows, dtype=torch.float64), torch.tensor(indices)
    loss = MaxEntropyLoss(gamma, weight, label_smoothing=smoothing, reduction="none")
    assert torch.equal(loss(z, target), loss(z, F.one_hot(target, 3).double()))


def test_reductions_are_the_sum_and_the_mean_of_the_samples():
    each = MaxEntropyLoss(reduction="none")(logits(), INDICES)
    assert each.shape == (6,)
    torch.testing.assert_close(MaxEntropyLoss(reduction="sum")(logits(), INDICES), each.sum())
    torch.testing.assert_close(MaxEntropyLoss()(logits(), INDICES), each.mean())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("correct", [True, False])
def test_huge_logits_give_finite_losses_and_gradients(correct, smoothing, dtype):
    z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4]], dtype=dtype, requires_grad=True)
    target = torch.tensor([0, 2]) if correct else torch.tensor([1, 0])
    loss = MaxEntropyLoss(label_smoothing=smoothing, reduction="none")(z, target)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert z.grad.isfinite().all()
    if not smoothing:
        expected = [0.0, 0.0] if correct else [2e4, 2e4]
        assert loss.tolist() == pytest.approx(expected, rel=2**-8)


def masked(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Logits in which class 1 is impossible, with all in one and some in another row."""
    z = logits(dtype)
    z[:, 1] = -math.inf
    z[5, 1:] = -math.inf
    return z


def without_class_1(target: torch.Tensor) -> torch.Tensor:
    target = target.clone()
    target[:, 1] = 0
    target[5] = torch.tensor([1.0, 0, 0, 0])
    return target / target.sum(dim=1, keepdim=True)


TARGETS = {
    "indices": torch.tensor([0, 3, 2, 3, 2, 0]),
    "probabilities": without_class_1(probabilities()),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("gamma", "weight"), SETTINGS)
def test_classes_with_a_logit_of_minus_infinity_are_as_if_they_were_not_there(
    gamma, weight, target
):
    loss = MaxEntropyLoss(gamma, weight, reduction="none")
    z = masked().requires_grad_()
    actual = loss(z, target)
    actual.sum().backward()

    distant = masked().clamp(min=-1e4).requires_grad_()  # probabilities that are 0 as numbers
    expected = loss(distant, target)
    expected.sum().backward()
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(z.grad, distant.grad, rtol=1e-11, atol=1e-13)
    assert (z.grad[:, 1] == 0).all()

    first = [row[:1] + row[2:] for row in (masked()[:5].tolist())]
    shares = target if target.is_floating_point() else F.one_hot(target, 4).double()
    shares = [row[:1] + row[2:] for row in shares[:5].tolist()]
    by_formula = [by_hand(row, t, gamma, weight) for row, t in zip(first, shares, strict=True)]
    assert actual[:5].tolist() == pytest.approx(by_formula, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_reference_says_the_same_of_logits_of_minus_infinity(target):
    ours, theirs = (masked().requires_grad_() for _ in range(2))
    shares = target if target.is_floating_point() else F.one_hot(target, 4).double()
    actual = MaxEntropyLoss(0.7, 0.4, reduction="none")(ours, target)
    expected = max_entropy_loss_reference(theirs, shares, 0.7, 0.4)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)
    actual.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_target_of_an_impossible_class_is_infinite_as_in_cross_entropy(dtype, weight):
    z = masked(dtype).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 2, 0])
    for given_as in (target, F.one_hot(target, 4).to(dtype)):
        z.grad = None
        each = MaxEntropyLoss(0.0, weight, reduction="none")(z, given_as)
        each.sum().backward()
        theirs = masked(torch.float64).to(dtype).requires_grad_()
        expected = F.cross_entropy(theirs.to(each.dtype), target, reduction="none")
        expected.sum().backward()
        assert expected[1].item() == math.inf
        torch.testing.assert_close(each, expected)
        torch.testing.assert_close(z.grad, theirs.grad)
    soft = max_entropy_loss_reference(masked(), F.one_hot(target, 4).double())
    assert soft.isinf().tolist() == [False, True, False, False, False, False]


def test_smoothed_labels_give_an_impossible_class_a_share_as_in_cross_entropy():
    loss = MaxEntropyLoss(label_smoothing=0.1, reduction="none")(masked(), TARGETS["indices"])
    expected = F.cross_entropy(
        masked(), TARGETS["indices"], label_smoothing=0.1, reduction="none"
    )  # fmt: skip
    assert torch.equal(loss, expected)
    assert (loss == math.inf).all()


def test_logits_that_are_all_minus_infinity_have_no_loss_as_in_cross_entropy():
    z, target = torch.full((1, 3), -math.inf), torch.tensor([0])
    assert F.cross_entropy(z, target).isnan()
    assert MaxEntropyLoss()(z, target).isnan()


def test_large_common_shifts_of_the_logits_change_nothing():
    loss = MaxEntropyLoss(reduction="none")
    torch.testing.assert_close(loss(logits() + 1e4, INDICES), loss(logits(), INDICES))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("target", [INDICES, probabilities()], ids=["indices", "probabilities"])
def test_16_bit_logits_are_computed_in_float32(dtype, target):
    actual = MaxEntropyLoss()(logits(dtype), target)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, MaxEntropyLoss()(logits(dtype).float(), target))


@pytest.mark.parametrize("class_weights", [None, torch.tensor([1.001, 2.003, 0.507, 3.001])])
@pytest.mark.parametrize("target", [INDICES, probabilities()], ids=["indices", "probabilities"])
def test_autocast_changes_nothing(target, class_weights):
    loss = MaxEntropyLoss(class_weights=class_weights)
    expected = loss(logits(torch.float32), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(logits(torch.float32), target), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("target", [INDICES, probabilities()], ids=["indices", "probabilities"])
def test_derivatives_agree_with_finite_differences(target, smoothing):
    def loss(z: torch.Tensor) -> torch.Tensor:
        return MaxEntropyLoss(0.7, 0.4, label_smoothing=smoothing)(z, target)

    z = logits().requires_grad_()
    assert torch.autograd.gradcheck(loss, z, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, z)


def test_an_empty_batch_sums_to_0_and_has_no_mean_as_in_cross_entropy():
    z, target = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, dtype=torch.long)
    assert MaxEntropyLoss(reduction="none")(z, target).shape == (0,)
    total = MaxEntropyLoss(reduction="sum")(z, target)
    total.backward()
    assert total.item() == 0
    assert z.grad.shape == (0, 3)
    assert F.cross_entropy(z, target).isnan()
    assert MaxEntropyLoss()(z, target).isnan()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8, torch.uint16])
def test_class_indices_may_be_of_any_integer_kind(dtype):
    assert torch.equal(
        MaxEntropyLoss()(logits(), INDICES.to(dtype)), MaxEntropyLoss()(logits(), INDICES)
    )


@pytest.mark.parametrize("index", [-100, -1, 4, 255])
def test_class_indices_out_of_range_are_refused_and_none_is_ignored(index):
    target = INDICES.clone()
    target[1] = index
    with pytest.raises(ValueError, match=r"holds class indices .* expected 0\.\.3 for 4 logits"):
        MaxEntropyLoss()(logits(), target)


@pytest.mark.parametrize(
    ("z", "target", "error", "message"),
    [
        (logits()[0], INDICES, ValueError, r"input has shape \(4,\) .* expected floating-point"),
        (logits().long(), INDICES, ValueError, r"dtype torch\.int64; expected floating-point"),
        (logits(), INDICES[:5], ValueError, r"target has shape \(5,\); expected \(6,\) class"),
        (logits(), INDICES[:, None], ValueError, r"target has shape \(6, 1\); expected \(6,\)"),
        (logits(), probabilities()[:5], ValueError, r"shape \(5, 4\); probabilities must have"),
        (logits(), INDICES.double(), ValueError, r"shape \(6,\); probabilities must have"),
        (logits(), INDICES.bool(), TypeError, r"target has dtype torch\.bool; expected int64"),
        (logits(), probabilities().cfloat(), TypeError, r"dtype torch\.complex64; expected int64"),
        (logits(), INDICES.tolist(), TypeError, r"target is a list; expected a torch\.Tensor"),
        (logits().numpy(), INDICES, TypeError, r"input is a ndarray; expected a torch\.Tensor"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(z, target, error, message):
    with pytest.raises(error, match=message):
        MaxEntropyLoss()(z, target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -0.1}, r"gamma is -0\.1; expected at least 0"),
        ({"gamma": math.nan}, "gamma is nan; expected at least 0"),
        ({"weight": 1.1}, r"weight is 1\.1; expected 0 to 1"),
        ({"weight": -0.1}, r"weight is -0\.1; expected 0 to 1"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1\.0; expected 0 up to below 1"),
        ({"label_smoothing": -0.1}, r"label_smoothing is -0\.1; expected 0 up to below 1"),
        ({"reduction": "max"}, r"reduction is 'max'; expected one of \('mean', 'sum', 'none'\)"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaxEntropyLoss(**arguments)


def test_prints_its_arguments():
    text = "MaxEntropyLoss(gamma=0.3, weight=1.0, label_smoothing=0.1, reduction='sum')"
    assert repr(MaxEntropyLoss(0.3, 1.0, label_smoothing=0.1, reduction="sum")) == text
