"""The maximum-entropy loss: cross-entropy that also rewards an undecided prediction."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from lca_fused.backends.tracing import is_watched, recorder, subclass_of_tensor

Reduction = Literal["mean", "sum", "none"]

_LEAST_LOG = -1e3  # below it exp() is 0 in every dtype


class MaxEntropyLoss(nn.Module):
    r"""Average of NLL and the maximum-entropy loss, arXiv 2001.03992 section 3.3.

    (1 - weight) * NLL + weight * (KL(target || p) - gamma * H[p]) with p = softmax(input).
    For class indices KL equals NLL, so gamma = 0 is cross-entropy to the last term; for target
    probabilities it is cross-entropy less the constant weight * H[target].

    Entropies are in nats, computed from log_softmax in float32 (float64 for float64 input) with
    no epsilon, so logits of any finite size are safe. A logit of -inf takes its class out: it adds
    nothing to the entropy, and the loss is inf where the target has a share of it. No target is
    ever ignored.

    With class weights the loss of a sample is multiplied by the weight of its target (for
    probabilities by the mean of the weights under the target), and "mean" divides by the sum of
    these. For class indices, weight = 0 and no smoothing this is nn.CrossEntropyLoss's `weight`.

    Args:
        gamma: weight of the entropy H[p] in the maximum-entropy loss; at least 0.
        weight: weight of the maximum-entropy loss in the average; 0 to 1.
        label_smoothing: share of the target moved to the uniform distribution, 0 up to below 1,
            as in nn.CrossEntropyLoss.
        reduction: "mean" or "sum" over the batch, or "none".
        class_weights: (K,), at least 0; None for 1 each. Moves with the module and is in its state.

    Shape:
        input (N, K) logits; target (N,) int64 class indices, or (N, K) probabilities of the
        input's kind. Returns a scalar, or (N,) with reduction "none".

    Raises:
        ValueError: an argument out of its range, shapes that do not fit, or (on the CPU) a class
            index outside 0..K-1.
        TypeError: input or target is no tensor, targets are neither integers nor floating point,
            or an argument is no number.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        gamma: float = 1.0,
        weight: float = 0.5,
        *,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        gamma, weight = _number("gamma", gamma), _number("weight", weight)
        label_smoothing = _number("label_smoothing", label_smoothing)
        if not gamma >= 0:
            raise ValueError(f"gamma is {gamma}; expected at least 0")
        if not 0 <= weight <= 1:
            raise ValueError(f"weight is {weight}; expected 0 to 1")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; expected 0 up to below 1")
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction is {reduction!r}; expected one of {get_args(Reduction)}")
        self.gamma = gamma
        self.weight = weight
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.register_buffer("class_weights", _checked_class_weights(class_weights))

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002 (torch's own name)
        """Return the loss of logits `input` (N, K) against `target` (N,) or (N, K)."""
        return _max_entropy_loss(
            input,
            target,
            self.class_weights,
            gamma=self.gamma,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Return the arguments that make this loss, as print(loss) shows them."""
        return (
            f"gamma={self.gamma}, weight={self.weight}, "
            f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}"
        )


def _max_entropy_loss(
    logits: Tensor,
    target: Tensor,
    class_weights: Tensor | None,
    *,
    reduction: Reduction,
    **terms: float,
) -> Tensor:
    if not isinstance(logits, Tensor) and has_torch_function((logits,)):  # a proxy of torch.fx
        arguments = (logits, target, class_weights)
        return handle_torch_function(
            _max_entropy_loss, (logits,), *arguments, reduction=reduction, **terms
        )
    _check(logits, target, class_weights)
    losses = _losses(logits, target, **terms)
    if class_weights is None:
        return losses if reduction == "none" else getattr(losses, reduction)()
    weights = _target_weights(target, class_weights.to(losses.dtype))
    losses = losses * weights
    if reduction == "none":
        return losses
    return losses.sum() / weights.sum() if reduction == "mean" else losses.sum()


def _losses(
    logits: Tensor, target: Tensor, gamma: float, weight: float, label_smoothing: float
) -> Tensor:
    """(N, K) logits -> (N,)."""
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    log_p = F.log_softmax(logits, dim=1, dtype=dtype)
    nll, target_entropy = _nll(log_p, target, label_smoothing)
    # p log p is 0 where p is 0, whatever log p.
    entropy = -(log_p.exp() * log_p.clamp(min=_LEAST_LOG)).sum(dim=1)
    # KL is nll - target_entropy. As nll may be infinite it is not split by weight: 0 * inf.
    return nll - weight * (target_entropy + gamma * entropy)


def _nll(log_p: Tensor, target: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor | float]:
    """Return -log p of the target (N,), and the target's own entropy, (N,) or 0."""
    if not target.is_floating_point():
        if not label_smoothing:
            return -log_p.gather(1, target.long()[:, None])[:, 0], 0.0
        target = torch.zeros_like(log_p).scatter(1, target.long()[:, None], 1)
    target = target.to(log_p.dtype)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / log_p.shape[1]
    else:  # a class without a share of the target adds 0, whatever its log p
        log_p = torch.where(target != 0, log_p, 0.0)
    return -(target * log_p).sum(dim=1), torch.special.entr(target).sum(dim=1)


def _target_weights(target: Tensor, class_weights: Tensor) -> Tensor:
    """Return the class weight of each target, (N,); of probabilities the mean."""
    if target.is_floating_point():
        # No matrix product, which autocast would round to 16 bits.
        return (target.to(class_weights.dtype) * class_weights).sum(dim=1)
    return class_weights[target.long()]


def _number(name: str, value: Any) -> float:
    """Return a number of any kind; a tensor without dimensions stays one."""
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Tensor) and value.dim() == 0:
        return value  # type: ignore[return-value]
    if getattr(value, "shape", None) == ():  # an array of NumPy's
        return float(value)
    shape = getattr(value, "shape", None)
    given = f"a {type(value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
    advice = ", the share of the maximum-entropy loss; weights of classes go in class_weights="
    raise TypeError(f"{name} is {given}; expected a number{advice if name == 'weight' else ''}")


def _checked_class_weights(class_weights: Tensor | None) -> Tensor | None:
    if class_weights is None:
        return None
    weights = torch.as_tensor(class_weights)
    if not weights.is_floating_point() or weights.dim() != 1 or not (weights >= 0).all():
        raise ValueError(
            f"class_weights has shape {tuple(weights.shape)} and dtype {weights.dtype}; expected "
            "(K,) floating-point numbers, one per class and none below 0"
        )
    return weights


def _check(logits: Tensor, target: Tensor, class_weights: Tensor | None) -> None:
    """Refuse what is neither class indices nor probabilities for these logits."""
    for name, given in (("input", logits), ("target", target)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} is a {type(given).__name__}; expected a torch.Tensor")
    if logits.dim() != 2 or not logits.is_floating_point():
        raise ValueError(
            f"input has shape {tuple(logits.shape)} and dtype {logits.dtype}; "
            "expected floating-point logits (N, K)"
        )
    if class_weights is not None and class_weights.shape != logits.shape[1:]:
        raise ValueError(
            f"class_weights has shape {tuple(class_weights.shape)}; expected one per logit, "
            f"({logits.shape[1]},)"
        )
    if not target.is_floating_point():
        _check_indices(logits, target)
    elif target.shape != logits.shape:
        raise ValueError(
            f"target has shape {tuple(target.shape)}; probabilities must have the "
            f"input's shape {tuple(logits.shape)}"
        )


def _check_indices(logits: Tensor, target: Tensor) -> None:
    n, classes = logits.shape
    if target.dtype in (torch.bool, torch.complex64, torch.complex128):
        raise TypeError(
            f"target has dtype {target.dtype}; expected int64 class indices or probabilities"
        )
    if target.shape != (n,):
        raise ValueError(
            f"target has shape {tuple(target.shape)}; expected ({n},) class indices "
            f"or ({n}, {classes}) probabilities"
        )
    # Elsewhere gather and scatter_ stop at an index out of range without waiting for the device.
    if _holds_numbers(target) and n:
        least, most = (int(index) for index in target.long().aminmax())  # uint16 has no minimum
        if least < 0 or most >= classes:
            raise ValueError(
                f"target holds class indices {least}..{most}; expected 0..{classes - 1} for "
                f"{classes} logits (no index is ever ignored: drop such samples)"
            )


def _holds_numbers(target: Tensor) -> bool:
    """Whether a question about the numbers of a target is answered at once, and by the target."""
    return (
        target.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and subclass_of_tensor(target) is None
        and recorder() is None
        and not is_watched()
        and not torch._C._are_functorch_transforms_active()
    )
