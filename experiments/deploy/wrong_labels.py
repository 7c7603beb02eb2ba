"""Photos whose label a classifier doubts, by confident learning on photos it was not trained on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray
from scipy.special import softmax
from tqdm import tqdm

from experiments.checksum import content_digests
from experiments.data.photo_check import Finding, Kind, PhotoCheck, Place, in_order
from experiments.deploy.inference import MAX_MEGAPIXELS, MEGAPIXEL, PhotoReader
from experiments.deploy.labelled_photos import LabelledPhotos, look_at
from experiments.results import trained_contents
from experiments.training.device import Compute
from lca_fused.classifier import Classifier
from lca_fused.description import described
from lca_fused.pretrained import load_classifier

_BATCH = 32


def add_wrong_labels(check: PhotoCheck, model: str, compute: Compute, workers: int) -> PhotoCheck:
    """Return a check with the photos whose label a model doubts, the most doubtful first.

    A model repeats what it was trained on, wrong labels too: only other photos are judged. Which
    those are is known where the model's result is beside it, as finetune.py and run_all.py store
    it; else photos in train/ are taken for those it was trained on.

    Args:
        check: the photos.
        model: folder of the stored classifier, or hf-hub:OWNER/NAME.
        compute: device and precision to compute with.
        workers: processes that decode photos.

    Raises:
        ValueError: the model cannot be loaded, or knows none of the classes.
        NoRoomError: memory does not hold the computation of one photo.
    """
    classifier = load_classifier(model)
    classes = described(classifier).classes
    known = [place for place in check.readable if place.name in classes]
    if not known:
        raise ValueError(
            f"{model} knows none of the classes of {check.root}; expected one that was trained on "
            f"folders of the same names, such as {classes[0]}"
        )
    judged, notes = _held_out(check, known, model)
    unknown = sorted({place.name for place in check.readable} - set(classes))
    if unknown:
        notes.append(f"{model} does not know {len(unknown)} of the classes: {', '.join(unknown)}.")
    doubtful = _doubtful(judged, _judged(classifier, judged, compute, workers), classes)
    finding = Finding(Kind.WRONG_LABELS, doubtful)
    return replace(
        check,
        findings=in_order([*check.findings, finding]),
        notes=(*check.notes, *notes),
    )


def _judged(
    classifier: Classifier, places: Sequence[Place], compute: Compute, workers: int
) -> LabelledPhotos:
    name_of = {place.path: place.name for place in places}
    reader = PhotoReader(
        list(name_of), described(classifier).preprocessing, MAX_MEGAPIXELS * MEGAPIXEL
    )
    with tqdm(
        total=len(name_of), unit="photo", desc="judging labels", leave=False, disable=None
    ) as bar:
        return look_at(
            classifier,
            name_of,
            compute,
            reader,
            batch_size=_BATCH,
            workers=workers,
            progress=lambda photos, _: bar.update(photos),
        )


def _held_out(
    check: PhotoCheck, places: Sequence[Place], model: str
) -> tuple[list[Place], list[str]]:
    """Return the photos that a model was not trained on, and what to know of them."""
    trained = trained_contents(model)
    if trained is not None:
        digests = content_digests(place.path for place in places)
        held = [p for p, digest in zip(places, digests, strict=True) if digest not in trained]
        how = f"the others are among the {len(trained)} that it was trained on"
    elif "train" in check.splits:
        held = [place for place in places if place.split != "train"]
        how = (
            "what it was trained on is not stored beside it, so that those in train/ are taken for "
            "it; if it has seen others, it repeats their labels"
        )
    else:
        held = list(places)
        how = (
            "what it was trained on is not stored beside it: if these photos were, it repeats "
            "their labels, and wrong ones stay hidden"
        )
    return held, [f"Labels of {len(held)} of {len(places)} photos are judged by {model}; {how}."]


def _doubtful(
    places: Sequence[Place], photos: LabelledPhotos, classes: Sequence[str]
) -> tuple[tuple[Place], ...]:
    """Return the photos whose label confident learning takes for wrong, the surest first."""
    if len(set(photos.names)) < 2:
        return ()  # how sure the model is of a class is known of photos with its label
    rows = softmax(photos.logits, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with few photos, listed anyway
        found = find_label_issues(
            photos.labels, rows, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    place_of = {place.path: place for place in places}
    return tuple(
        (_doubted(place_of[photos.paths[i]], photos.labels[i], rows[i], classes),) for i in found
    )


def _doubted(
    place: Place, label: int, probabilities: NDArray[np.float64], classes: Sequence[str]
) -> Place:
    likeliest = int(probabilities.argmax())
    return replace(
        place,
        remark=f"{classes[likeliest]}? {100 * probabilities[likeliest]:.0f} %, its label "
        f"{100 * probabilities[label]:.0f} %",
    )
