"""When a classifier says "unknown", and how sure it says it is: temperature, score, threshold.

The probabilities shown are softmax(logits / temperature), calibrated. Whether the likeliest class
is named at all is decided by a score of the logits as they come, above a threshold or not. The
temperature has no part in it: it is fitted to the same photos as the threshold, which must not
move the scores that the threshold is proven on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from torch import Tensor

UNKNOWN = "unknown"
"""What a photo is called that no class is accepted for."""


def max_softmax(logits: Tensor) -> Tensor:
    """Return the probability of the likeliest class (Hendrycks and Gimpel, 2017)."""
    return logits.softmax(dim=-1).amax(dim=-1)


def energy(logits: Tensor) -> Tensor:
    """Return the negative free energy, logsumexp (Liu et al., 2020)."""
    return logits.logsumexp(dim=-1)


def max_logit(logits: Tensor) -> Tensor:
    """Return the greatest logit; of a gallery scale times the cosine of the most alike photo."""
    return logits.amax(dim=-1)


SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "max-softmax": max_softmax,
    "energy": energy,
    "max-logit": max_logit,
}
"""Logits (..., K) -> scores (...): the greater, the surer."""


@dataclass(frozen=True)
class Decision:
    """How a classifier decides; without arguments: as its logits say, and every photo is accepted.

    Attributes:
        temperature: that logits are divided by before the softmax, above 0.
        score: name in `SCORES`.
        threshold: photos are accepted whose score is above it; None accepts all.
        precision: share of right answers among accepted photos that was proven, 0..1; None where
            none was.
        confidence: with which it was proven, 0..1.
        photos: number of accepted validation photos that it was proven on.
        errors: number of them that were wrong.

    Raises:
        ValueError: a value is out of its range, or there is no such score.
    """

    temperature: float = 1.0
    score: str = "max-softmax"
    threshold: float | None = None
    precision: float | None = None
    confidence: float = 0.95
    photos: int = 0
    errors: int = 0

    def __post_init__(self) -> None:
        if not (_is_number(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature is {self.temperature!r}; expected a number above 0")
        if self.score not in SCORES:
            raise ValueError(f"score is {self.score!r}; expected one of {', '.join(SCORES)}")
        if not (self.threshold is None or _is_number(self.threshold)):
            raise ValueError(f"threshold is {self.threshold!r}; expected a number or None")
        for name in ("precision", "confidence"):
            value = getattr(self, name)
            if not (value is None or (_is_number(value) and 0 <= value <= 1)):
                raise ValueError(f"{name} is {value!r}; expected a number from 0 to 1")

    def scores(self, logits: Tensor) -> Tensor:
        """Return how sure each photo is, (N,) float64, of logits (N, K)."""
        return SCORES[self.score](logits.detach().double())

    def accepted(self, logits: Tensor) -> Tensor:
        """Return whether each photo's likeliest class is named, (N,) bool, of logits (N, K)."""
        scores = self.scores(logits)
        return scores > (-math.inf if self.threshold is None else self.threshold)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return calibrated probabilities (N, K) float64 of logits (N, K)."""
        return (logits.detach().double() / self.temperature).softmax(dim=1)

    def unproven(self) -> Decision:
        """Return the same of other classes, on which no precision was proven."""
        return replace(self, precision=None, photos=0, errors=0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as a config.json holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Decision:
        """Return what `to_dict` was called on.

        Raises:
            ValueError: a value is not known here, of another type or out of its range.
        """
        names = [field.name for field in fields(cls)]
        if not (isinstance(values, dict) and values.keys() <= set(names)):
            raise ValueError(f"its decision is {values!r}; expected {', '.join(names)}")
        return cls(**values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
