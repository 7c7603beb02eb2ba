"""A stored classifier that answers for as long as a server runs, whatever becomes of its folder."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.checksum import content_digests
from experiments.data.names import composed
from experiments.deploy.enrolling import Embedder, add_to_gallery, lookalikes_of
from experiments.deploy.explanation_images import Seen, explainable, explained
from experiments.deploy.gallery_folder import changing, gallery_photos
from experiments.deploy.inference import PhotoReader
from experiments.training.device import Compute
from lca_fused import load_classifier
from lca_fused.classifier import Classifier
from lca_fused.description import described
from lca_fused.prediction import Prediction, PredictionError, predictions_of
from lca_fused.pretrained import CONFIG_FILE, gallery_of

logger = logging.getLogger(__name__)

_LONGEST_NAME = 100  # characters
_AT_ONCE = 32  # photos that go through the network


class RefusedError(ValueError):
    """What is asked for is not done; the message, one sentence, is for whoever asked."""


@dataclass(frozen=True)
class Answer:
    """What is said about one photo.

    Attributes:
        prediction: the likeliest classes.
        image: the photo as the network saw it, (1, 3, S, S), normalised, on the model's device.
        classifier: the classifier that said so.
    """

    prediction: Prediction
    image: torch.Tensor
    classifier: Classifier


class ServedModel:
    """The classifier of a folder, loaded again when the content of the folder is another.

    A folder that cannot be loaded, as one that is half written, leaves the classifier that was
    loaded before in place. Methods may be called by several threads at a time: one computes, the
    others wait.

    Args:
        source: folder of a stored classifier, or "hf-hub:OWNER/NAME", which is loaded once.
        compute: device and precision to compute with.
        top_k: number of classes per photo; all of them where there are fewer.
        max_pixels: largest photo that is decoded.

    Attributes:
        problem: why the folder cannot be used as it is now; empty where it can.

    Raises:
        PretrainedError: there is no classifier that can be loaded.
    """

    def __init__(self, source: str, compute: Compute, *, top_k: int, max_pixels: int) -> None:
        self.compute = compute
        self.top_k = top_k
        self.max_pixels = max_pixels
        self.problem = ""
        self._source = source
        self._folder = Path(source) if (Path(source) / CONFIG_FILE).exists() else None
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._take(load_classifier(source))

    @property
    def explains(self) -> bool:
        """Whether its logits can be taken apart."""
        return explainable(self._classifier)

    @property
    def is_gallery(self) -> bool:
        """Whether products can join it: it is a gallery, in a folder of this machine."""
        return self._folder is not None and gallery_of(self._classifier) is not None

    def describe(self) -> str:
        """Return in a few words which model answers now."""
        with self._lock:
            self._refresh()
            description = described(self._classifier)
            name = self._folder.resolve().name if self._folder else self._source
            content = f", content {self._loaded_content}" if self._loaded_content else ""
            return (
                f"{name}: {len(description.classes)} products, {description.head['name']} on "
                f"{description.backbone}, loaded at {self._loaded_at}{content}"
            )

    def answer(self, photo: Path) -> Answer:
        """Say which product a photo shows.

        Raises:
            RefusedError: the photo cannot be read, or is larger than allowed.
        """
        with self._lock:
            self._refresh()
            classifier = self._classifier
            description = described(classifier)
            _, image = PhotoReader([photo], description.preprocessing, self.max_pixels)[0]
            if isinstance(image, str):
                raise RefusedError(f"The photo is not used: {_without_path(image, photo)}.")
            batch = image[None].to(self.compute.device, memory_format=torch.channels_last)
            with torch.inference_mode(), self.compute.autocast():
                logits = classifier(batch)
            try:
                (prediction,) = predictions_of(logits, description, self.top_k)
            except PredictionError as error:
                raise RefusedError(
                    "The network's output for this photo is not finite; start the server with "
                    "--precision float32."
                ) from error
            return Answer(prediction, batch, classifier)

    def explain(self, answer: Answer) -> list[Seen]:
        """Take an answer's likeliest class apart; of a gallery, its most alike photo too.

        Raises:
            ValueError: it cannot be explained; its message is for the log.
        """
        gallery = self._folder and gallery_photos(str(self._folder))
        with self._lock:
            return explained(answer.classifier, answer.image, answer.prediction, gallery)

    def enroll(self, name: str, photos: Sequence[Path], *, replace: bool) -> list[str]:
        """Add a product to the gallery as enroll.py does; return sentences on what was done.

        Args:
            name: of the product.
            photos: files of its photos.
            replace: whether the vectors of a product of that name may be replaced.

        Raises:
            RefusedError: the product cannot be enrolled; nothing was changed.
        """
        name = _checked(name)
        if not photos:
            raise RefusedError("No photos were given; add at least one of the product.")
        with self._lock:
            self._refresh()
            if self._folder is None or gallery_of(self._classifier) is None:
                raise RefusedError("The model is not a gallery any more, which products can join.")
            try:
                with changing(self._folder):
                    return self._enroll(self._folder, name, photos, replace)
            except RefusedError:
                raise
            except (ValueError, OSError) as error:
                logger.error("not enrolled: %s", error)
                raise RefusedError(
                    "The gallery cannot be changed now: another program may be changing it, or "
                    "its folder cannot be written to (the server's log says why). Try again."
                ) from error

    def _enroll(self, folder: Path, name: str, photos: Sequence[Path], replace: bool) -> list[str]:
        classifier = load_classifier(folder)
        known = name in described(classifier).classes
        if known and not replace:
            raise RefusedError(
                f"{name} is known already; tick the box to replace its photos, or take another "
                "name."
            )
        compute = Compute(self.compute.device, torch.float32)
        embedder = Embedder(classifier, compute, folder, dict.fromkeys(photos, name))
        problems: dict[Path, str] = {}
        for _, left_out in embedder.batches(self.max_pixels, _AT_ONCE, 0):
            problems |= left_out
        _, left_out = embedder.lay_on_grounds("auto", _AT_ONCE)
        problems |= left_out
        said = [
            f"{path.name} is left out: {_without_path(problem, path)}."
            for path, problem in problems.items()
        ]
        if not embedder.products:
            raise RefusedError(" ".join(["Nothing was enrolled.", *said]))
        gallery = add_to_gallery(classifier, folder, embedder.products, mean=False)
        said += [
            f"{path.name} is nearly as like {found.other} (cosine {found.cosine:.3f}) as like "
            f"{name} ({found.own:.3f}): add photos that show what differs."
            for path, _, found in lookalikes_of(gallery, embedder.products)
        ]
        if described(classifier).decision.threshold is not None:
            said.append(
                "The threshold below which a photo is unknown was set on other products; "
                "evaluate.py --store sets it anew."
            )
        done = "is replaced by" if known else "is enrolled from"
        used = len(photos) - len(problems)
        return [f"{name} {done} {used} of {len(photos)} photos.", *said]

    def _refresh(self) -> None:
        """Load the folder again if its content is another than when it was last looked at."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            classifier = load_classifier(self._source)
        except (ValueError, OSError) as error:
            logger.error("the model changed and cannot be used as it is: %s", error)
            self.problem = (
                "The model's folder has changed and cannot be used as it is (the server's log says "
                f"why): answers are those of the model that was loaded at {self._loaded_at}."
            )
            return
        self._take(classifier)
        logger.info("the model changed and is loaded again")

    def _take(self, classifier: Classifier) -> None:
        self._classifier = classifier.to(self.compute.device).to(memory_format=torch.channels_last)
        self._loaded_at = time.strftime("%H:%M:%S")
        self._loaded_content = self._seen
        self.problem = ""

    def _stamp(self) -> str:
        """Return what the content of the folder is known by; empty where it cannot be read."""
        if self._folder is None:
            return ""
        files = [self._folder / CONFIG_FILE, *sorted(self._folder.glob("*.safetensors"))]
        try:
            digests = content_digests(files)
        except OSError:  # somebody is changing it
            return ""
        return hashlib.blake2b("".join(digests).encode(), digest_size=6).hexdigest()


def _checked(name: str) -> str:
    """Return the name of a product as it is stored.

    Raises:
        RefusedError: it cannot be one.
    """
    name = composed(" ".join(name.split()))
    if not name:
        raise RefusedError("The product has no name; type one.")
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise RefusedError(
            f"The product's name has {len(name)} characters; expected at most {_LONGEST_NAME}, "
            "all of them printable."
        )
    return name


def _without_path(reason: str, photo: Path) -> str:
    return reason.replace(str(photo), photo.name).rstrip(".")
