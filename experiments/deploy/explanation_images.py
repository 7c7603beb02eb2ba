"""A picture per photo: where the evidence for its class is, and the local concepts behind it.

Of a gallery the photo's most alike enrolled photo is drawn below it: what in each made it like the
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.data.own_output import PICTURE_METADATA
from experiments.deploy.gallery_folder import read_photo
from experiments.file_names import FileNames
from experiments.outputs import check_folder
from experiments.storage import write_atomically
from lca_fused import LCA, Classifier, Explanation, explain
from lca_fused.description import described
from lca_fused.explanation_plots import draw_concepts, draw_heat_map
from lca_fused.gallery import Gallery
from lca_fused.prediction import Prediction
from lca_fused.pretrained import gallery_of

_SIZE = (13.0, 4.0)  # inches
_DPI = 100


class ExplanationError(ValueError):
    """The model's logits are no sums over rectangles, so there is nothing to draw."""


class ExplanationImages:
    """Writes PNG files into a folder.

    Args:
        classifier: classifier whose predictions are explained.
        folder: folder of the pictures; made if needed, a file of the same name is replaced.
        gallery_folder: folder of a gallery, with its photos; None draws the photos explained alone.

    Raises:
        ExplanationError: the classifier's head is not LCA.
        OutputError: the folder cannot be made or written to.
    """

    def __init__(
        self, classifier: Classifier, folder: Path, gallery_folder: Path | None = None
    ) -> None:
        if not explainable(classifier):
            head = described(classifier).head["name"]
            raise ExplanationError(
                f"the model's head is {head!r}, and only logits over LCA are sums over the "
                "rectangles of a photo; leave out --explain, or take a model of lca or lca-me"
            )
        self.classifier = classifier
        self.folder = folder
        self.gallery_folder = gallery_folder
        self._names = FileNames()
        check_folder(folder, "--explain")
        folder.mkdir(parents=True, exist_ok=True)

    def save(
        self, paths: Sequence[Path], images: Tensor, predictions: Sequence[Prediction]
    ) -> dict[Path, str]:
        """Explain the likeliest class of each photo.

        Args:
            paths: files of n photos; their names become those of the pictures.
            images: the photos, (n, 3, S, S), normalised, on the model's device.
            predictions: what is said of each photo, n of them.

        Returns:
            Photos without a picture, and why; the others have theirs.
        """
        if not paths:
            return {}
        files = [self.folder / self._names.take(path.name, ".png") for path in paths]
        try:
            explanation = self._explain(images, predictions)
        except Exception:  # of one photo, or of so many at once
            each = zip(files, images.split(1), predictions, strict=True)
            problems = [self._save_alone(file, image, said) for file, image, said in each]
        else:
            photos = described(self.classifier).preprocessing.photos_of(images)
            problems = [
                self._draw(explanation, images, photos[index], index, file, said)
                for index, (file, said) in enumerate(zip(files, predictions, strict=True))
            ]
        return {
            path: problem
            for path, problem in zip(paths, problems, strict=True)
            if problem is not None
        }

    def _explain(self, images: Tensor, predictions: Sequence[Prediction]) -> Explanation:
        target = torch.tensor([said.indices[0] for said in predictions], device=images.device)
        return explain(self.classifier, images, target)

    def _save_alone(self, file: Path, image: Tensor, said: Prediction) -> str | None:
        try:
            explanation = self._explain(image, [said])
        except Exception as error:  # whatever it is, the other photos have their pictures
            file.unlink(missing_ok=True)
            return f"cannot be explained ({type(error).__name__}: {error})"
        (photo,) = described(self.classifier).preprocessing.photos_of(image)
        return self._draw(explanation, image, photo, 0, file, said)

    def _draw(
        self,
        explanation: Explanation,
        images: Tensor,
        photo: Tensor,
        index: int,
        path: Path,
        said: Prediction,
    ) -> str | None:
        """Draw a picture; return why it cannot be, or None."""
        try:
            image, product = images[index : index + 1], int(explanation.target[index])
            seen = [Seen(explanation, photo, index, _title(said))]
            seen += _most_alike(self.classifier, image, product, self.gallery_folder)
            figure = draw(seen, described(self.classifier).classes)
            save = partial(figure.savefig, format="png", dpi=_DPI, metadata=PICTURE_METADATA)
            write_atomically(path, save)
        except Exception as error:  # see above
            path.unlink(missing_ok=True)  # an earlier picture is not this prediction's
            return f"its picture {path} cannot be drawn ({type(error).__name__}: {error})"
        return None


@dataclass(frozen=True)
class Seen:
    """A photo and what is to be drawn on it.

    Attributes:
        explanation: of a batch with it.
        photo: (S, S, 3) uint8.
        index: of it in the batch.
        title: instead of the name of its class.
    """

    explanation: Explanation
    photo: Tensor
    index: int
    title: str | None = None

    def name(self, classes: Sequence[str]) -> str:
        """Return the title, or else the name of the class explained."""
        return self.title or classes[int(self.explanation.target[self.index])]


def explainable(classifier: Classifier) -> bool:
    """Return whether a classifier's logits are sums over the rectangles of a photo."""
    return isinstance(classifier.pool, LCA)


def explained(
    classifier: Classifier, image: Tensor, said: Prediction, gallery_folder: Path | None = None
) -> list[Seen]:
    """Explain the likeliest class of one photo; of a gallery, the most alike enrolled photo too.

    Args:
        classifier: classifier whose head is LCA.
        image: the photo, (1, 3, S, S), normalised, on the model's device.
        said: what is said of it.
        gallery_folder: as `ExplanationImages` takes it.

    Raises:
        ValueError: the photo, or the enrolled one, cannot be explained.
    """
    (photo,) = described(classifier).preprocessing.photos_of(image)
    product = said.indices[0]
    seen = Seen(explain(classifier, image, product), photo, 0, _title(said))
    return [seen, *_most_alike(classifier, image, product, gallery_folder)]


def _title(said: Prediction) -> str | None:
    """Return what stands for the name of the class where it is not accepted."""
    return None if said.accepted else f"{said.name}, most like {said.top[0][0]}"


def _most_alike(
    classifier: Classifier, image: Tensor, product: int, gallery_folder: Path | None
) -> list[Seen]:
    """Return the enrolled photo most like an image (1, 3, S, S), explained by the image.

    Its logit is for a gallery whose one vector is the image's own embedding: the same cosine,
    taken apart over the other photo. Its copy is a JPEG, so the sum differs a little.
    """
    gallery = gallery_of(classifier)
    if gallery is None or gallery_folder is None:
        return []
    with torch.inference_mode():
        embedding = classifier.forward_head(classifier.forward_features(image), pre_logits=True)
    nearest = gallery.nearest(embedding, torch.tensor([product], device=image.device))
    name = gallery.photos[int(nearest)]
    if not name:
        return []
    preprocessing = described(classifier).preprocessing
    photo = read_photo(gallery_folder, name)
    mirrored = Classifier(classifier.backbone, classifier.pool, 0)
    mirrored.set_gallery(Gallery(embedding.clone(), torch.zeros(1), ["photo"], scale=gallery.scale))
    explanation = explain(mirrored, preprocessing.images_of(photo[None]).to(image.device))
    return [Seen(explanation, photo, 0, f"enrolled photo of {gallery.names[product]}")]


def draw(seen: Sequence[Seen], classes: Sequence[str]) -> Figure:
    """Return a row for each photo: its heat map, and beside it its top local concepts."""
    width, height = _SIZE
    figure = Figure(figsize=(width, height * len(seen)), layout="constrained")
    rows = figure.subfigures(len(seen), 2, width_ratios=(1.0, 2.0), squeeze=False)
    for (left, right), one in zip(cast(Any, rows), seen, strict=True):
        drawn, name = (one.photo, one.explanation, one.index), one.name(classes)
        draw_heat_map(left.add_subplot(), *drawn, class_name=name)
        draw_concepts(right, *drawn, class_name=name)
    return figure
