"""What temperature and threshold owe to the photos they were set on: halves drawn many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch

from experiments.calibration import expected_calibration_error, reliability
from experiments.deploy.deciding import decide
from experiments.deploy.labelled_photos import LabelledPhotos


@dataclass(frozen=True)
class Half:
    """What was set on one half of the photos, seen on the other half.

    Attributes:
        error_before: expected calibration error without temperature, 0..1.
        error_after: with the temperature of the first half.
        proven: whether the first half proved the precision that was asked for.
        precision: share of right answers among accepted photos; None where none was accepted.
        coverage: share of known products' photos that were accepted.
    """

    error_before: float
    error_after: float
    proven: bool
    precision: float | None
    coverage: float


def draw_halves(photos: LabelledPhotos, score: str, precision: float, draws: int) -> list[Half]:
    """Set temperature and threshold on one half of the photos and look at the other, many times.

    Args:
        photos: photos that the classifier was not trained on.
        score: name in `lca_fused.decision.SCORES`.
        precision: share of right answers among those accepted, above 0 and below 1.
        draws: number of draws, by the seeds 0, 1, ...

    Raises:
        ValueError: a half has no photo of a known product.
    """
    drawn = []
    for seed in range(draws):
        validation, tested = photos.halves(seed)
        if not (validation.known.any() and tested.known.any()):
            raise ValueError(
                f"of {len(photos)} photos a half drawn by seed {seed} has none of a known product; "
                "add photos"
            )
        drawn.append(_half(validation, tested, score, precision))
    return drawn


def _half(validation: LabelledPhotos, tested: LabelledPhotos, score: str, precision: float) -> Half:
    decision, proof = decide(validation, score, precision)
    accepted = decision.accepted(torch.from_numpy(tested.logits)).numpy()
    return Half(
        error_before=_calibration_error(tested, 1.0),
        error_after=_calibration_error(tested, decision.temperature),
        proven=proof.holds,
        precision=float(tested.right[accepted].mean()) if accepted.any() else None,
        coverage=float(accepted[tested.known].mean()),
    )


def _calibration_error(photos: LabelledPhotos, temperature: float) -> float:
    known = photos.of(photos.known)
    return expected_calibration_error(reliability(known.logits / temperature, known.labels))


def in_words(drawn: Sequence[Half], asked: float) -> list[str]:
    """Return a sentence on temperatures and one on thresholds that were to have a precision."""
    draws = len(drawn)
    before, after = mean(h.error_before for h in drawn), mean(h.error_after for h in drawn)
    lower = sum(half.error_after < half.error_before for half in drawn)
    proven = [half for half in drawn if half.proven]
    held = draws - sum(half.precision is not None and half.precision < asked for half in proven)
    measured = [half.precision for half in proven if half.precision is not None]
    thresholds = (
        f"a precision of {100 * asked:g} % was proven on one half in {len(proven)} of {draws}, and "
        f"the other half had it, or no threshold or photo to judge, in {held}"
    )
    if measured:
        coverage = mean(half.coverage for half in proven)
        thresholds += (
            f"; where proven, {100 * coverage:.0f} % of known products' photos were accepted, and "
            f"{100 * mean(measured):.1f} % of all accepted were right, on average"
        )
    return [
        f"halves drawn {draws} times: the temperature of one lowered the calibration error of the "
        f"other in {lower}, on average from {before:.4f} to {after:.4f}",
        thresholds,
    ]
