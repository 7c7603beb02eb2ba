"""Pictures of what spoke for a prediction, of some that are right and some that are wrong."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from experiments.report.confusion import confused_pairs
from experiments.report.photos import WEBP_QUALITY, CellPhotos, webp_uri
from experiments.report.stored import StoredCell
from experiments.study.methods import METHODS
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
class Picture:
    """One picture of an explanation: a data URI, what it shows, and its width in pixels."""

    uri: str
    alt: str
    width: int


@dataclass(frozen=True)
class ExplainedPhoto:
    """A test photo, and what spoke for the class it was taken for.

    Attributes:
        label: name of its class.
        predicted: name of the class it was taken for.
        right: whether they are the same.
        pictures: heat maps, and the top local concepts.
        problem: why there are no pictures, or "".
    """

    label: str
    predicted: str
    right: bool
    pictures: tuple[Picture, ...]
    problem: str = ""


def explain_photos(cell: StoredCell, photos: CellPhotos, each: int) -> list[ExplainedPhoto]:
    """Explain up to `each` wrong and as many right predictions of a cell's stored model.

    The wrong ones are of the pairs of classes that are confused most, the right ones of classes
    spread over all that there are. One that cannot be explained says why, and the others are.

    Raises:
        NoExplanationError: the head is not LCA, or the model's file is gone or cannot be used.
    """
    loaded = _load_model(cell)
    prepared = Prepared(described(loaded).preprocessing)
    chosen = [*_wrong(cell, each), *_right(cell, each)]
    explained: list[ExplainedPhoto] = []
    for position in chosen:
        try:
            images = prepared(photos.test[position])[None]
        except ImageError:  # the photo was damaged or removed after it was tested
            continue
        label, predicted = cell.labels[position], cell.predicted[position]
        pictures: tuple[Picture, ...] = ()
        problem = ""
        try:
            pictures = _pictures(loaded, images, photos.classes, label, predicted)
        except Exception as error:  # whatever it is, the other photos are shown
            problem = f"{photos.test[position]}: {type(error).__name__}: {error}"
        names = photos.classes[label], photos.classes[predicted]
        explained.append(ExplainedPhoto(*names, label == predicted, pictures, problem))
    return explained


def _load_model(cell: StoredCell) -> Classifier:
    method = METHODS.get(cell.method)
    if method is None or method.head != "lca":
        raise NoExplanationError(
            "only a score over LCA is a sum over positions and rectangles, and this row has no LCA"
        )
    if cell.model is None:
        raise NoExplanationError(f"the model {cell.path.with_suffix('.model')} is gone")
    try:
        return load_classifier(cell.model)
    except ValueError as error:
        raise NoExplanationError(str(error)) from error


def _wrong(cell: StoredCell, most: int) -> list[int]:
    pairs = confused_pairs(cell.labels, cell.predicted, most)
    first = [pair.mistakes[0][0] for pair in pairs]
    others = [
        position
        for position, (label, prediction) in enumerate(
            zip(cell.labels, cell.predicted, strict=True)
        )
        if label != prediction and position not in first
    ]
    return (first + others)[:most]


def _right(cell: StoredCell, most: int) -> list[int]:
    """Return the first right photo of each of some classes, spread evenly over all of them."""
    first: dict[int, int] = {}
    for position, (label, prediction) in enumerate(zip(cell.labels, cell.predicted, strict=True)):
        if label == prediction:
            first.setdefault(label, position)
    positions = [first[label] for label in sorted(first)]
    if len(positions) <= most:
        return positions
    return [positions[round(place * (len(positions) - 1) / (most - 1))] for place in range(most)]


def _pictures(
    loaded: Classifier, images: Tensor, names: Sequence[str], label: int, predicted: int
) -> tuple[Picture, ...]:
    pixels = described(loaded).preprocessing.photos_of(images)[0]
    taken_for = explain(loaded, images, predicted)
    pictures = [_heat_map(pixels, taken_for, names[predicted])]
    if label != predicted:
        pictures.append(_heat_map(pixels, explain(loaded, images, label), names[label]))
    pictures.append(_concepts(pixels, taken_for, names[predicted]))
    return tuple(pictures)


def _heat_map(pixels: Tensor, explanation: Explanation, name: str) -> Picture:
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


def _concepts(pixels: Tensor, explanation: Explanation, name: str) -> Picture:
    figure = Figure(figsize=(6.2, 2.9), layout="constrained")
    concepts = draw_concepts(figure, pixels, explanation, 0, k=_CONCEPTS, class_name=name)
    alt = f"The photo and the {len(concepts)} local concepts that add most to the score of {name}."
    return _picture(figure, alt)


def _picture(figure: Figure, alt: str) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="webp", dpi=_DPI, pil_kwargs={"quality": WEBP_QUALITY})
    return Picture(webp_uri(file.getvalue()), alt, width=round(figure.get_figwidth() * 96))
