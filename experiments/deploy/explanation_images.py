"""A picture per photo: where the evidence for its class is, and the local concepts behind it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.data.own_output import PICTURE_METADATA
from experiments.file_names import FileNames
from experiments.outputs import check_folder
from experiments.storage import write_atomically
from lca_fused import LCA, Classifier, Explanation, explain
from lca_fused.description import described
from lca_fused.explanation_plots import draw_concepts, draw_heat_map

_SIZE = (13.0, 4.0)  # inches
_DPI = 100


class ExplanationError(ValueError):
    """The model's logits are no sums over rectangles, so there is nothing to draw."""


class ExplanationImages:
    """Writes PNG files into a folder.

    Args:
        classifier: classifier whose predictions are explained.
        folder: folder of the pictures; made if needed, a file of the same name is replaced.

    Raises:
        ExplanationError: the classifier's head is not LCA.
        OutputError: the folder cannot be made or written to.
    """

    def __init__(self, classifier: Classifier, folder: Path) -> None:
        if not isinstance(classifier.pool, LCA):
            head = described(classifier).head["name"]
            raise ExplanationError(
                f"the model's head is {head!r}, and only logits over LCA are sums over the "
                "rectangles of a photo; leave out --explain, or take a model of lca or lca-me"
            )
        self.classifier = classifier
        self.folder = folder
        self._names = FileNames()
        check_folder(folder, "--explain")
        folder.mkdir(parents=True, exist_ok=True)

    def save(
        self, paths: Sequence[Path], images: Tensor, classes: Sequence[int]
    ) -> dict[Path, str]:
        """Explain a class of each photo.

        Args:
            paths: files of n photos; their names become those of the pictures.
            images: the photos, (n, 3, S, S), normalised, on the model's device.
            classes: index of the class to explain for each photo, n of them.

        Returns:
            Photos without a picture, and why; the others have theirs.
        """
        if not paths:
            return {}
        files = [self.folder / self._names.take(path.name, ".png") for path in paths]
        try:
            explanation = self._explain(images, classes)
        except Exception:  # of one photo, or of so many at once
            each = zip(files, images.split(1), classes, strict=True)
            problems = [self._save_alone(file, image, index) for file, image, index in each]
        else:
            photos = described(self.classifier).preprocessing.photos_of(images)
            problems = [
                self._draw(explanation, photos[index], index, file)
                for index, file in enumerate(files)
            ]
        return {
            path: problem
            for path, problem in zip(paths, problems, strict=True)
            if problem is not None
        }

    def _explain(self, images: Tensor, classes: Sequence[int]) -> Explanation:
        target = torch.tensor(classes, device=images.device)
        return explain(self.classifier, images, target)

    def _save_alone(self, file: Path, image: Tensor, index: int) -> str | None:
        try:
            explanation = self._explain(image, [index])
        except Exception as error:  # whatever it is, the other photos have their pictures
            file.unlink(missing_ok=True)
            return f"cannot be explained ({type(error).__name__}: {error})"
        (photo,) = described(self.classifier).preprocessing.photos_of(image)
        return self._draw(explanation, photo, 0, file)

    def _draw(self, explanation: Explanation, photo: Tensor, index: int, path: Path) -> str | None:
        """Draw a picture; return why it cannot be, or None."""
        try:
            figure = draw(explanation, photo, index, described(self.classifier).classes)
            save = partial(figure.savefig, format="png", dpi=_DPI, metadata=PICTURE_METADATA)
            write_atomically(path, save)
        except Exception as error:  # see above
            path.unlink(missing_ok=True)  # an earlier picture is not this prediction's
            return f"its picture {path} cannot be drawn ({type(error).__name__}: {error})"
        return None


def draw(explanation: Explanation, photo: Tensor, index: int, classes: Sequence[str]) -> Figure:
    """Return the heat map of a photo (S, S, 3) uint8, and beside it its top local concepts."""
    name = classes[int(explanation.target[index])]
    figure = Figure(figsize=_SIZE, layout="constrained")
    left, right = cast(Any, figure.subfigures(1, 2, width_ratios=(1.0, 2.0)))
    draw_heat_map(left.add_subplot(), photo, explanation, index, class_name=name)
    draw_concepts(right, photo, explanation, index, class_name=name)
    return figure
