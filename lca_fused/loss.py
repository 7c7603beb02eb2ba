"""The maximum-entropy loss: cross-entropy that also rewards an undecided prediction."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    Args:
        gamma: weight of the entropy H[p] in the maximum-entropy loss; at least 0.
        weight: weight of the maximum-entropy loss in the average; 0 to 1.
        label_smoothing: share of the target moved to the uniform distribution, 0 up to below 1,
            as in nn.CrossEntropyLoss.
        reduction: "mean" or "sum" over the batch, or "none".

    Shape:
        input (N, K) logits; target (N,) int64 class indices, or (N, K) probabilities of the
        input's kind. Returns a scalar, or (N,) with reduction "none".

    Raises:
        ValueError: an argument out of its range, shapes that do not fit, or (on the CPU) a class
            index outside 0..K-1.
        TypeError: targets that are neither integers nor floating point.
    """

    def __init__(
        self,
        gamma: float = 1.0,
        weight: float = 0.5,
        *,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
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

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002 (torch's own name)
        """Return the loss of logits `input` (N, K) against `target` (N,) or (N, K)."""
        _check(input, target)
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        log_p = F.log_softmax(input, dim=1, dtype=dtype)
        nll, target_entropy = self._nll(log_p, target)
        # p log p is 0 where p is 0, whatever log p.
        entropy = -(log_p.exp() * log_p.clamp(min=_LEAST_LOG)).sum(dim=1)
        # KL is nll - target_entropy. As nll may be infinite it is not split by weight: 0 * inf.
        loss = nll - self.weight * (target_entropy + self.gamma * entropy)
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()

    def extra_repr(self) -> str:
        """Return the arguments that make this loss, as print(loss) shows them."""
        return (
            f"gamma={self.gamma}, weight={self.weight}, "
            f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}"
        )

    def _nll(self, log_p: Tensor, target: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return -log p of the target (N,), and the target's own entropy, (N,) or 0."""
        if not target.is_floating_point():
            if not self.label_smoothing:
                return -log_p.gather(1, target.long()[:, None])[:, 0], 0.0
            target = torch.zeros_like(log_p).scatter_(1, target.long()[:, None], 1)
        target = target.to(log_p.dtype)
        if self.label_smoothing:
            uniform = self.label_smoothing / log_p.shape[1]
            target = target * (1 - self.label_smoothing) + uniform
        else:  # a class without a share of the target adds 0, whatever its log p
            log_p = torch.where(target != 0, log_p, 0.0)
        return -(target * log_p).sum(dim=1), torch.special.entr(target).sum(dim=1)


def _check(logits: Tensor, target: Tensor) -> None:
    """Refuse what is neither class indices nor probabilities for these logits."""
    if logits.dim() != 2 or not logits.is_floating_point():
        raise ValueError(
            f"input has shape {tuple(logits.shape)} and dtype {logits.dtype}; "
            "expected floating-point logits (N, K)"
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
    on_cpu = target.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_cpu and n and (target.min() < 0 or target.max() >= classes):
        raise ValueError(
            f"target holds class indices {int(target.min())}..{int(target.max())}; expected "
            f"0..{classes - 1} for {classes} logits (no index is ever ignored: drop such samples)"
        )
