"""Pictures of what spoke for a prediction, of some that are right and some that are wrong."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from experiments.methods import METHODS
from experiments.report.figures import WEBP_QUALITY, Chart, webp_uri
from experiments.report.mistakes import confused_pairs
from experiments.results import Result, model_folder
from lca_fused import Classifier, explain, load_classifier
from lca_fused.description import described
from lca_fused.explain import Explanation
from lca_fused.explanation_plots import draw_concepts, draw_heat_map
from lca_fused.photos.reading import ImageError
from lca_fused.prediction import Prepared

_DPI = 130
_CONCEPTS = 4


class NoExplanationError(ValueError):
    """This cell's predictions cannot be explained; the message says why."""


@dataclass(frozen=True)
class ExplainedPhoto:
    """A test photo, and what spoke for the class it was taken for.

    Attributes:
        label: name of the photo's class.
        predicted: name of the class that the photo was taken for.
        right: whether they are the same.
        pictures: heat maps of the photo, and its top local concepts.
        problem: reason why there are no pictures, or "".
    """

    label: str
    predicted: str
    right: bool
    pictures: tuple[Chart, ...]
    problem: str = ""


def explain_photos(result: Result, photos: Sequence[Path], each: int) -> list[ExplainedPhoto]:
    """Explain up to `each` wrong and as many right predictions of a result's stored model.

    The wrong ones are of the pairs of classes that are confused most, the right ones of classes
    spread over all that there are. One that cannot be explained says why, and the others are.

    Raises:
        NoExplanationError: the head is not LCA, or the model's file is gone or cannot be used.
    """
    loaded = _load_model(result)
    prepared = Prepared(described(loaded).preprocessing)
    explained: list[ExplainedPhoto] = []
    for position in [*_wrong(result, each), *_right(result, each)]:
        try:
            images = prepared(photos[position])[None]
        except ImageError:  # the photo was damaged or removed after it was tested
            continue
        label, predicted = result.labels[position], result.predicted[position]
        pictures: tuple[Chart, ...] = ()
        problem = ""
        try:
            pictures = _pictures(loaded, images, result.classes, label, predicted)
        except Exception as error:  # whatever it is, the other photos are shown
            problem = f"{photos[position]}: {type(error).__name__}: {error}"
        names = result.classes[label], result.classes[predicted]
        explained.append(ExplainedPhoto(*names, label == predicted, pictures, problem))
    return explained


def _load_model(result: Result) -> Classifier:
    if METHODS[result.method].head != "lca":
        raise NoExplanationError(
            "only a score over LCA is a sum over positions and rectangles, and this row has no LCA"
        )
    if result.model is None:
        raise NoExplanationError(f"the model {model_folder(result.path)} is gone")
    try:
        return load_classifier(result.model)
    except ValueError as error:
        raise NoExplanationError(str(error)) from error


def _wrong(result: Result, most: int) -> list[int]:
    pairs = confused_pairs(result.labels, result.predicted, most)
    first = [pair.mistakes[0][0] for pair in pairs]
    wrong = [position for position, right in enumerate(result.right) if not right]
    return list(dict.fromkeys([*first, *wrong]))[:most]


def _right(result: Result, most: int) -> list[int]:
    """Return the first right photo of each of some classes, spread evenly over all of them."""
    first: dict[int, int] = {}
    for position, right in enumerate(result.right):
        if right:
            first.setdefault(result.labels[position], position)
    positions = [first[label] for label in sorted(first)]
    if len(positions) <= most:
        return positions
    return [positions[round(place * (len(positions) - 1) / (most - 1))] for place in range(most)]


def _pictures(
    loaded: Classifier, images: Tensor, names: Sequence[str], label: int, predicted: int
) -> tuple[Chart, ...]:
    pixels = described(loaded).preprocessing.photos_of(images)[0]
    taken_for = explain(loaded, images, predicted)
    pictures = [_heat_map(pixels, taken_for, names[predicted])]
    if label != predicted:
        pictures.append(_heat_map(pixels, explain(loaded, images, label), names[label]))
    pictures.append(_concepts(pixels, taken_for, names[predicted]))
    return tuple(pictures)


def _heat_map(pixels: Tensor, explanation: Explanation, name: str) -> Chart:
    figure = Figure(figsize=(3.3, 2.9), layout="constrained")
    draw_heat_map(figure.add_subplot(), pixels, explanation, 0, class_name=name)
    strongest = explanation.positions[0].flatten().argmax().item()
    row, column = divmod(int(strongest), explanation.map_size[1])
    height, width = explanation.map_size
    alt = (
        f"Heat map of what each of {height} x {width} positions adds to the score of {name}; "
        f"most is added in row {row + 1}, column {column + 1}."
    )
    return _picture(figure, alt)


def _concepts(pixels: Tensor, explanation: Explanation, name: str) -> Chart:
    figure = Figure(figsize=(6.2, 2.9), layout="constrained")
    concepts = draw_concepts(figure, pixels, explanation, 0, k=_CONCEPTS, class_name=name)
    alt = f"The photo and the {len(concepts)} local concepts that add most to the score of {name}."
    return _picture(figure, alt)


def _picture(figure: Figure, alt: str) -> Chart:
    file = io.BytesIO()
    figure.savefig(file, format="webp", dpi=_DPI, pil_kwargs={"quality": WEBP_QUALITY})
    return Chart(webp_uri(file.getvalue()), alt, width=round(figure.get_figwidth() * 96))
