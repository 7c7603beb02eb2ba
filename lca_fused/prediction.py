"""Photos in, names of products and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lca_fused.decision import UNKNOWN
from lca_fused.description import Description, described
from lca_fused.evaluation import evaluation_mode
from lca_fused.photos.reading import read_image
from lca_fused.preprocessing import Preprocessing, shrink

if TYPE_CHECKING:
    from lca_fused.classifier import Classifier

Photo: TypeAlias = "str | Path | Image.Image | np.ndarray | Tensor"
"""A file, a Pillow image, an array (H, W, 3) or (H, W), or a tensor (3, H, W) or (1, H, W).

Arrays and tensors hold RGB, or grey, as uint8 or as floating-point numbers in 0..1.
"""


@dataclass(frozen=True)
class Prediction:
    """What is said about one photo.

    Attributes:
        top: the likeliest classes and their calibrated probabilities (0..1), by falling
            probability.
        indices: the indices of those classes.
        accepted: whether the classifier is sure enough to name the likeliest class.
    """

    top: tuple[tuple[str, float], ...]
    indices: tuple[int, ...]
    accepted: bool = True

    @property
    def name(self) -> str:
        """Name of the likeliest class; "unknown" where it is not accepted."""
        return self.top[0][0] if self.accepted else UNKNOWN

    @property
    def probability(self) -> float:
        """Probability of the likeliest class, accepted or not, 0..1."""
        return self.top[0][1]


class PredictionError(ValueError):
    """The network's output for a photo is not finite."""


def predict(
    classifier: Classifier,
    photos: Photo | Sequence[Photo],
    *,
    top_k: int = 5,
    batch_size: int = 32,
) -> Prediction | list[Prediction]:
    """Say which products photos show.

    Photos go through the classifier's preprocessing, as in its training; it is put in evaluation
    mode for the time.

    Args:
        classifier: a classifier that has a description.
        photos: one photo or many; a batch of arrays (N, H, W, 3) or tensors (N, 3, H, W) is many.
        top_k: the number of classes per photo; all of them where there are fewer.
        batch_size: photos that go through the network at once.

    Returns:
        A prediction, or a list with one for each of many photos.

    Raises:
        ValueError: the classifier has no description; top_k or batch_size is below 1; an array or
            tensor is no photo; the network's output is not finite.
        TypeError: something is not a photo.
        ImageError: a file cannot be read.
    """
    description = described(classifier)
    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    many = _many(photos)
    predictions: list[Prediction] = []
    prepared = Prepared(description.preprocessing)
    parameter = next(classifier.parameters())
    with evaluation_mode(classifier):
        for start in range(0, len(many), batch_size):
            images = torch.stack([prepared(photo) for photo in many[start : start + batch_size]])
            with torch.inference_mode():
                logits = classifier(images.to(parameter.device, parameter.dtype))
            predictions += predictions_of(logits, description, top_k)
    return predictions[0] if _is_one(photos) else predictions


def predictions_of(logits: Tensor, description: Description, top_k: int) -> list[Prediction]:
    """Return what logits (N, K) of the classifier described say of N photos.

    Raises:
        PredictionError: a logit is not finite.
    """
    logits = logits.cpu()  # what follows is computed in float64, which not every device has
    if not logits.isfinite().all():
        rows = (~logits.isfinite().all(dim=1)).nonzero().flatten().tolist()
        raise PredictionError(
            f"the network's output for the photos {rows[:10]} of the batch is not finite; try "
            "float32, and look for numbers that are not finite among its parameters"
        )
    classes, decision = description.classes, description.decision
    probabilities, ranked = decision.probabilities(logits).topk(min(top_k, len(classes)))
    accepted = decision.accepted(logits)
    return [
        Prediction(tuple(zip((classes[i] for i in indices), p, strict=True)), tuple(indices), sure)
        for indices, p, sure in zip(
            ranked.tolist(), probabilities.tolist(), accepted.tolist(), strict=True
        )
    ]


class Prepared:
    """Turns photos into what a network takes.

    Args:
        preprocessing: the network's preprocessing.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._side = preprocessing.kept_side
        self._transform = preprocessing.transform()

    def __call__(self, photo: Photo) -> Tensor:
        """Return a photo as (3, S, S) float32, normalised."""
        pixels = np.array(shrink(as_image(photo), self._side))
        return self._transform(torch.from_numpy(pixels).permute(2, 0, 1))


def as_image(photo: Photo) -> Image.Image:
    """Return a photo upright, in mode "RGB".

    Raises:
        ValueError: an array or tensor is no photo.
        TypeError: it is something else.
        ImageError: it cannot be read.
    """
    if isinstance(photo, str | Path | Image.Image):
        return read_image(photo)
    if isinstance(photo, Tensor):
        pixels = photo.detach().cpu()
        pixels = pixels.float() if pixels.is_floating_point() else pixels
        photo = (pixels.permute(1, 2, 0) if pixels.dim() == 3 else pixels).numpy()
    if isinstance(photo, np.ndarray):
        return Image.fromarray(_bytes(photo)).convert("RGB")
    raise TypeError(
        f"a photo is a {type(photo).__name__}; expected a path, a Pillow image, an array (H, W, 3) "
        "or a tensor (3, H, W)"
    )


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """Return pixels (H, W, 3 or 1) or (H, W) as uint8 (H, W, 3) or (H, W)."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or not pixels.size:
        raise ValueError(
            f"a photo has shape {pixels.shape} with its channels last; expected (H, W, 3) of an "
            "array, (3, H, W) of a tensor, or one channel"
        )
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"a photo has dtype {pixels.dtype}; expected uint8, or numbers in 0..1")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(
            f"a photo of floating-point numbers lies in {pixels.min():g}..{pixels.max():g}; "
            "expected 0..1, not normalised: the classifier does that"
        )
    return (255 * pixels).round().astype(np.uint8)


def _is_one(photos: Photo | Sequence[Photo]) -> bool:
    if isinstance(photos, np.ndarray | Tensor):
        return photos.ndim < 4
    return isinstance(photos, str | Path | Image.Image)


def _many(photos: Photo | Sequence[Photo]) -> list[Photo]:
    if _is_one(photos):
        return [photos]  # type: ignore[list-item]
    try:
        return list(photos)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(
            f"photos are a {type(photos).__name__}; expected a path, a Pillow image, an array or a "
            "tensor, or a sequence of them"
        ) from error
