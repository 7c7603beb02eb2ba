"""How good a classifier is on photos it has not seen, as numbers: each is computed here once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.calibration import Bin, expected_calibration_error, log_loss, reliability
from experiments.selective import auroc, let_through
from experiments.significance import wilson_interval
from lca_fused.decision import SCORES, Decision


@dataclass(frozen=True)
class Share:
    """So many of so many, with Wilson's 95 % interval."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """The share, 0..1; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        """Its interval, 0..1."""
        return wilson_interval(self.count, self.of) if self.of else (0.0, 1.0)

    def __str__(self) -> str:
        if not self.of:
            return "of no photo"
        low, high = (100 * end for end in self.interval)
        return f"{100 * self.count / self.of:.1f} % of {self.of} ({low:.1f} to {high:.1f})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"share": self.value, "interval": self.interval, "count": self.count, "of": self.of}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a classifier says of n photos, and what it should say.

    Attributes:
        classes: names of the K classes.
        decision: temperature and threshold, of other photos than these.
        logits: (n, K) float64.
        labels: index of each photo's class, below 0 for a product that is none of them, (n,).
        names: name of each photo's product, n.
    """

    classes: tuple[str, ...]
    decision: Decision
    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: Sequence[str]

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Whether each photo's product is one of the classes, (n,)."""
        return self.labels >= 0

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The likeliest class of each photo, (n,)."""
        return self.logits.argmax(axis=1)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether that is its own, (n,)."""
        return self.predicted == self.labels

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """How sure the classifier is of each photo, (n,)."""
        return self.decision.scores(torch.from_numpy(self.logits)).numpy()

    @cached_property
    def accepted(self) -> NDArray[np.bool_]:
        """Whether each photo's class is named, (n,)."""
        return self.decision.accepted(torch.from_numpy(self.logits)).numpy()

    @property
    def accuracy(self) -> Share:
        """Right answers among photos of known products, all of them answered."""
        return Share(int(self.right.sum()), int(self.known.sum()))

    @property
    def precision(self) -> Share:
        """Right answers among accepted photos."""
        return Share(int((self.right & self.accepted).sum()), int(self.accepted.sum()))

    @property
    def coverage(self) -> Share:
        """Accepted photos among those of known products."""
        return Share(int((self.known & self.accepted).sum()), int(self.known.sum()))

    @property
    def unknown_let_through(self) -> Share:
        """Accepted photos among those of unknown products."""
        return Share(int((~self.known & self.accepted).sum()), int((~self.known).sum()))

    def reliability(self, *, calibrated: bool) -> list[Bin]:
        """Return the known products' photos by probability, before or after the temperature."""
        return reliability(self._logits(calibrated), self.labels[self.known])

    def calibration_error(self, *, calibrated: bool) -> float:
        """Return the expected calibration error before or after the temperature, 0..1."""
        return expected_calibration_error(self.reliability(calibrated=calibrated))

    def loss(self, *, calibrated: bool) -> float:
        """Return the mean negative log-likelihood before or after the temperature, in nats."""
        return log_loss(self._logits(calibrated), self.labels[self.known])

    def _logits(self, calibrated: bool) -> NDArray[np.float64]:
        return self.logits[self.known] / (self.decision.temperature if calibrated else 1.0)

    @cached_property
    def rejection(self) -> dict[str, dict[str, float]]:
        """Each score's AUROC, and share let through at 95 % of known kept; {} without unknown."""
        if self.known.all() or not self.known.any():
            return {}
        logits = torch.from_numpy(self.logits)
        both = {
            name: (score(logits).numpy()[self.known], score(logits).numpy()[~self.known])
            for name, score in SCORES.items()
        }
        return {
            name: {"auroc": auroc(*parts), "let_through": let_through(*parts)}
            for name, parts in both.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured, as plain values."""
        return {
            "decision": self.decision.to_dict(),
            "accuracy": self.accuracy.to_dict(),
            "accepted": {
                "precision": self.precision.to_dict(),
                "coverage": self.coverage.to_dict(),
                "unknown_let_through": self.unknown_let_through.to_dict(),
            },
            "calibration": {
                name: {
                    "expected_calibration_error": self.calibration_error(calibrated=after),
                    "log_loss": self.loss(calibrated=after),
                    "bins": [vars(one) for one in self.reliability(calibrated=after)],
                }
                for name, after in (("before", False), ("after", True))
            },
            "rejection": self.rejection,
            "unknown_products": sorted(
                {name for name, known in zip(self.names, self.known, strict=True) if not known}
            ),
        }
