"""The maximum-entropy loss exactly as the paper states it (arXiv 2001.03992, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor


def max_entropy_loss_reference(
    logits: Tensor, target: Tensor, gamma: float = 1.0, weight: float = 0.5
) -> Tensor:
    """(1 - weight) * NLL + weight * (D_KL(target || p) - gamma * H[p]), one per sample.

    Args:
        logits: (N, K).
        target: (N, K) probabilities.
        gamma: weight of the entropy inside the maximum-entropy term.
        weight: weight of the maximum-entropy term in the average.

    Returns:
        (N,), in nats. Where the target has a share of a class whose logit is -inf it is inf, and
        NaN with a weight of 0 or 1 (0 * inf).
    """
    p = torch.softmax(logits, dim=1)
    log_p = torch.log_softmax(logits, dim=1)
    nll = -_times_log(target, log_p).sum(dim=1)
    divergence = (torch.xlogy(target, target) - _times_log(target, log_p)).sum(dim=1)
    entropy = -_times_log(p, log_p).sum(dim=1)
    return (1 - weight) * nll + weight * (divergence - gamma * entropy)


def _times_log(q: Tensor, log_p: Tensor) -> Tensor:
    """Return q log p, where 0 log 0 = 0."""
    return q * torch.where(q == 0, 0.0, log_p)
