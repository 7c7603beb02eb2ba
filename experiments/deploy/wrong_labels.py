"""Photos whose label a classifier doubts, by confident learning on photos it was not trained on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.checksum import content_digests
from experiments.data.photo_check import Finding, Kind, PhotoCheck, Place, in_order
from experiments.deploy.inference import MAX_MEGAPIXELS, MEGAPIXEL, PhotoReader
from experiments.results import Result
from experiments.storage import CheckpointError
from experiments.training.device import Compute
from lca_fused.classifier import Classifier
from lca_fused.description import described
from lca_fused.evaluation import evaluation_mode
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
    paths = [place.path for place in judged]
    probabilities = probabilities_of(classifier, paths, compute, workers)
    judged = [place for place in judged if place.path in probabilities]
    finding = Finding(Kind.WRONG_LABELS, _doubtful(judged, probabilities, classes))
    return replace(
        check,
        findings=in_order([*check.findings, finding]),
        notes=(*check.notes, *notes),
    )


def probabilities_of(
    classifier: Classifier, paths: Sequence[Path], compute: Compute, workers: int
) -> dict[Path, NDArray[np.float64]]:
    """Return the probability of each of K classes, (K,), for each photo that can be read."""
    preprocessing = described(classifier).preprocessing
    reader = PhotoReader(paths, preprocessing, MAX_MEGAPIXELS * MEGAPIXEL)
    model = classifier.to(compute.device).to(memory_format=torch.channels_last)
    found: dict[Path, NDArray[np.float64]] = {}
    with (
        evaluation_mode(model),
        torch.inference_mode(),
        tqdm(
            total=len(paths), unit="photo", desc="judging labels", leave=False, disable=None
        ) as bar,
    ):
        for batch in reader.batches(_BATCH, workers):
            bar.update(len(batch.paths))
            if not batch.readable:
                continue
            images = batch.images.to(compute.device, memory_format=torch.channels_last)
            with compute.autocast():
                logits = model(images)
            probabilities = logits.float().cpu().double().softmax(dim=1).numpy()
            found |= dict(zip(batch.readable, probabilities, strict=True))
    return found


def _held_out(
    check: PhotoCheck, places: Sequence[Place], model: str
) -> tuple[list[Place], list[str]]:
    """Return the photos that a model was not trained on, and what to know of them."""
    trained = _trained_contents(model)
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


def _trained_contents(model: str) -> set[str] | None:
    try:
        result = Result.read(Path(model).with_suffix(".json"))
    except (OSError, CheckpointError):
        return None
    return set(result.trained_contents)


def _doubtful(
    places: Sequence[Place],
    probabilities: Mapping[Path, NDArray[np.float64]],
    classes: Sequence[str],
) -> tuple[tuple[Place], ...]:
    """Return the photos whose label confident learning takes for wrong, the surest first."""
    if not places:
        return ()
    labels = np.array([classes.index(place.name) for place in places])
    rows = np.stack([probabilities[place.path] for place in places])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with few photos, listed anyway
        found = find_label_issues(
            labels, rows, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    return tuple((_doubted(places[i], labels[i], rows[i], classes),) for i in found)


def _doubted(
    place: Place, label: int, probabilities: NDArray[np.float64], classes: Sequence[str]
) -> Place:
    likeliest = int(probabilities.argmax())
    return replace(
        place,
        remark=f"{classes[likeliest]}? {100 * probabilities[likeliest]:.0f} %, its label "
        f"{100 * probabilities[label]:.0f} %",
    )
