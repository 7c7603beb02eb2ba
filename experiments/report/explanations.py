"""Pictures of what spoke for a prediction, of some that are right and some that are wrong."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from experiments.data.augment import evaluation_transform
from experiments.data.dataset import DataError, Sample
from experiments.data.torch_dataset import PhotoDataset
from experiments.deploy.explanation_images import as_photos
from experiments.deploy.inference import stored_side
from experiments.networks.checkpoint import LoadedClassifier, load_classifier
from experiments.report.confusion import confused_pairs
from experiments.report.photos import WEBP_QUALITY, CellPhotos, webp_uri
from experiments.report.stored import StoredCell
from experiments.study.methods import METHODS
from lca_fused import explain
from lca_fused.explain import Explanation
from lca_fused.explanation_plots import draw_concepts, draw_heat_map

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
    chosen = [*_wrong(cell, each), *_right(cell, each)]
    explained: list[ExplainedPhoto] = []
    for position in chosen:
        try:
            images = _network_input(loaded, photos.test[position])
        except DataError:  # the photo was damaged or removed after it was tested
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


def _load_model(cell: StoredCell) -> LoadedClassifier:
    method = METHODS.get(cell.method)
    if method is None or method.head != "lca":
        raise NoExplanationError(
            "only a score over LCA is a sum over positions and rectangles, and this row has no LCA"
        )
    if cell.model is None:
        raise NoExplanationError(f"the model's file {cell.path.with_suffix('.model.pt')} is gone")
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


def _network_input(loaded: LoadedClassifier, path: Path) -> Tensor:
    """Return a photo as it was scored, (1, 3, S, S), normalised."""
    size = loaded.recipe.image_size
    transform = evaluation_transform(
        size,
        loaded.normalization.mean,
        loaded.normalization.std,
        center_crop=loaded.recipe.augmentation.center_crop,
    )
    side = stored_side(size)
    image, _ = PhotoDataset([Sample(path, 0)], transform, cache_side=side, workers=1)[0]
    return image[None]


def _pictures(
    loaded: LoadedClassifier, images: Tensor, names: Sequence[str], label: int, predicted: int
) -> tuple[Picture, ...]:
    pixels = as_photos(images, loaded.normalization)[0]
    taken_for = explain(loaded.model, images, predicted)
    pictures = [_heat_map(pixels, taken_for, names[predicted])]
    if label != predicted:
        pictures.append(_heat_map(pixels, explain(loaded.model, images, label), names[label]))
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
