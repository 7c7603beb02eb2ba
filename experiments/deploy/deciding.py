"""How a classifier is to decide: temperature and threshold from labelled photos it has not seen."""

from __future__ import annotations

import torch

from experiments.calibration import fit_temperature
from experiments.deploy.labelled_photos import LabelledPhotos
from experiments.selective import CONFIDENCE, Proof, fewest_photos, prove
from lca_fused.decision import SCORES, Decision


def decide(photos: LabelledPhotos, score: str, precision: float) -> tuple[Decision, Proof]:
    """Return how to decide, and what the photos prove of a precision.

    Without a proof there is no threshold. Photos of unknown products are wrong wherever they are
    accepted, and have no part in the temperature.

    Args:
        photos: validation photos, at least one of a known product.
        score: name in `SCORES`.
        precision: share of right answers among those accepted, above 0 and below 1.
    """
    known = photos.of(photos.known)
    scores = SCORES[score](torch.from_numpy(photos.logits)).numpy()
    proof = prove(scores, photos.right, precision)
    decision = Decision(
        temperature=fit_temperature(known.logits, known.labels),
        score=score,
        threshold=proof.threshold,
        precision=precision if proof.holds else None,
        confidence=CONFIDENCE,
        photos=proof.photos,
        errors=proof.errors,
    )
    return decision, proof


def in_words(proof: Proof, photos: int) -> list[str]:
    """Return what so many validation photos prove, and what they would have to."""
    asked = f"{100 * proof.precision:g} %"
    if proof.holds:
        above = "all photos" if proof.threshold is None else f"scores above {proof.threshold:.6g}"
        return [
            f"precision of {asked} proven with {100 * CONFIDENCE:g} % confidence for {above}: "
            f"{proof.errors} of {proof.photos} validation photos accepted there are wrong"
        ]
    fewest, with_one = (fewest_photos(proof.precision, wrong, proof.share) for wrong in (0, 1))
    needed = f"{fewest} accepted without an error, {with_one} with one"
    if proof.best is None:
        most = (1 - CONFIDENCE) ** (1 / photos) if photos else 0.0
        return [
            f"precision of {asked} cannot be proven with {photos} validation photos: it takes "
            f"{needed}; {photos} without an error prove {_down(most)} %. No photo is refused"
        ]
    return [
        f"precision of {asked} is not proven: it takes {needed}, and of the {proof.best.photos} "
        f"surest of {photos} validation photos {proof.best.errors} are wrong, which proves "
        f"{_down(proof.best.precision)} %. No photo is refused; more photos prove more, and a "
        "lower --precision needs fewer"
    ]


def _down(share: float) -> str:
    """Return a share in per cent, rounded down: what is said is proven."""
    return f"{int(1000 * share) / 10:g}"
