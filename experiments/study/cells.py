"""One cell of the table: a method on a data set with a seed, computed once and stored."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch.utils.data import DataLoader

from experiments.checksum import content_digests
from experiments.data.dataset import ProductDataset, cutting_digest, dataset_digest
from experiments.data.torch_dataset import GIB, PhotoDataset
from experiments.matching.detectors import make_detector
from experiments.matching.evaluate import evaluate_matching
from experiments.matching.keypoints import Detector
from experiments.methods import METHODS
from experiments.networks.backbones import load_network, weights_file
from experiments.networks.model import ModelError, new_classifier
from experiments.networks.weights import fingerprint
from experiments.outputs import check_space, make_folder, missing_packages
from experiments.results import Result, model_folder
from experiments.training.arcface import Directions
from experiments.training.class_means import class_means, enroll_class_means
from experiments.training.device import Compute, device_name
from experiments.training.distributed import in_step, on_first, rank
from experiments.training.feature_maps import MapDataset, MapStore
from experiments.training.head_first import start_whitened, train_head
from experiments.training.memory import NoRoomError, ran_out_of_memory
from experiments.training.photos import Photos
from experiments.training.recipe import Recipe
from experiments.training.scoring import Score, score
from experiments.training.trainer import Log, Progress, Trainer
from lca_fused import LCA
from lca_fused.backbones import Backbone, find_backbone
from lca_fused.classifier import Classifier

MAPS = "maps"
"""Folder of a run's feature maps, of use to the cells that are not computed yet."""

TENSORBOARD = "tensorboard"
"""Folder of a run's event files, beside its report."""

_CHECKPOINT = ".checkpoint.pt"
_HEAD_CHECKPOINT = ".head.checkpoint.pt"

# Settings that a backbone's maps depend on.
_OF_MAPS = ("dataset", "photos", "cut_out", "backbone", "weights", "preprocessing", "precision")


@dataclass(frozen=True)
class Cell:
    """What one cell is made of; two cells with equal fields have the same result.

    Attributes:
        dataset: the photos and their protocol.
        method: key of `experiments.methods.METHODS`.
        seed: seed of the head's initial weights, the order of photos and their augmentation.
        backbone: backbone as `lca_fused.backbones.find_backbone` takes it; keypoint matching has
            none.
        weights: file of the pretrained weights of the backbone, or of the keypoint detector; None
            for those that are fetched.
        recipe: how it is finetuned, changed as its method has it; with an image size
            (`Recipe.for_backbone`).
        compute: device and precision to compute with.
        command: command line that asked for the cell, for the report; the result does not depend on
            it.
        tensorboard: whether its training is written as TensorBoard's event files as well.
    """

    dataset: ProductDataset
    method: str
    seed: int
    backbone: str
    weights: Path | None
    recipe: Recipe
    compute: Compute
    command: str = ""
    tensorboard: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", METHODS[self.method].adapt(self.recipe))

    @property
    def head(self) -> str | None:
        """Key of `lca_fused.heads.HEADS`, or None for keypoint matching."""
        return METHODS[self.method].head

    @property
    def network(self) -> Backbone:
        """The backbone, for photos of the recipe's size."""
        return find_backbone(self.backbone).at(self.recipe.image_size or None)

    @property
    def title(self) -> str:
        """Its name, for progress bars and messages."""
        return f"{self.dataset.name} {self.method} seed {self.seed}"

    def detector(self) -> Detector:
        """Return the keypoint detector; raises WeightsError where its weights are missing."""
        name = METHODS[self.method].detector
        if name is None:
            raise ValueError(f"{self.method} matches no keypoints")
        return _detector(name, self.weights, self.compute.device)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Everything the result depends on, as plain values; photos as they are when first asked.

        Raises:
            WeightsError: a weights file is missing.
            OSError: a photo cannot be read.
        """
        common = {"dataset": self.dataset.name, "photos": dataset_digest(self.dataset)}
        if self.head is None:
            return common | {"method": self.method, "detector": dict(self.detector().params)}
        return common | {
            "cut_out": cutting_digest(self.dataset),
            "method": self.method,
            "seed": self.seed,
            "backbone": self.backbone,
            "weights": weights_identity(self.network, self.weights),
            "preprocessing": self.network.preprocessing.to_dict(),
            "recipe": asdict(self.recipe),
            "precision": str(self.compute.precision).removeprefix("torch."),
        }

    def path(self, output: Path) -> Path:
        """Return the file its result is stored in, under `output`."""
        text = json.dumps(self.settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        name = self.method if self.head is None else f"{self.method}-seed{self.seed}"
        return output / "cells" / self.dataset.name / f"{name}-{digest}.json"


def run_cell(cell: Cell, photos: Callable[[], Photos], output: Path, workers: int) -> Result:
    """Return the result of `cell`: the stored one, or computed and stored now.

    A cell that was interrupted goes on after its last finished epoch.

    Raises:
        ModelError: the network cannot be built or trained, or the GPU's memory does not hold it.
        CheckpointError: what is stored of it cannot be read.
        OutputError: the results cannot be written, or the disk has no room for them.
    """
    path = on_first(cell.path)(output)
    stored = on_first(_stored)(path)
    if stored is not None:
        return stored
    for folder in (path.parent, *([_keypoints(output)] if cell.head is None else [])):
        on_first(make_folder)(folder, "the folder of results")
    checkpoint = path.with_suffix(_CHECKPOINT)
    start = time.perf_counter()
    told = on_first(_told_of)(cell)  # now: photos may be moved while it trains
    if cell.head is None:
        computed = on_first(_match)(cell, output, checkpoint)
    elif METHODS[cell.method].gallery:
        computed = on_first(_enroll)(cell, photos, path, output / MAPS)
    else:
        computed = _finetune(cell, photos, path, output / MAPS, workers)
    result = Result(
        path,
        **told,
        **computed,
        seconds=time.perf_counter() - start,
        device=device_name(cell.compute.device),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "platform": platform.platform(),
        },
    )
    return _store(result)


def _stored(path: Path) -> Result | None:
    return Result.read(path) if path.exists() else None


@on_first
def _store(result: Result) -> Result:
    """Store a result; return it as it is read from then on."""
    result.save()
    for ending in (_CHECKPOINT, _HEAD_CHECKPOINT):
        result.path.with_suffix(ending).unlink(missing_ok=True)
    return Result.read(result.path)


def _told_of(cell: Cell) -> dict[str, Any]:
    """Return what a result says about what it was computed from."""
    data = cell.dataset
    everything = [*data.train, *data.validation, *data.test]
    folder = os.path.commonpath([sample.path.absolute().parent for sample in everything])
    counts = Counter(sample.label for sample in data.train)
    return {
        "command": cell.command,
        "settings": cell.settings,
        "labels": [sample.label for sample in data.test],
        "classes": data.classes,
        "trained_on": [counts[label] for label in range(len(data.classes))],
        "folder": folder,
        "images": [sample.path.absolute().relative_to(folder).as_posix() for sample in data.test],
        "contents": content_digests(sample.path for sample in data.test),
        "trained_contents": content_digests(sample.path for sample in data.train),
        "notes": data.notes,
    }


def forget_maps(output: Path) -> None:
    """Remove the feature maps of a run whose cells are all computed."""
    shutil.rmtree(output / MAPS, ignore_errors=True)


def build_classifier(cell: Cell) -> Classifier:
    """Return the classifier of `cell`, pretrained backbone and head drawn from its seed."""
    if cell.head is None:
        raise ValueError(f"{cell.method} has no network to build")
    size = cell.network.preprocessing.image_size
    network = load_network(cell.backbone, cell.weights, size)
    torch.manual_seed(cell.seed)
    model = new_classifier(network, cell.head, len(cell.dataset.classes), size)
    if METHODS[cell.method].arcface:
        model.classifier = Directions(model.head_hidden_size, model.num_classes)
    return model


def weights_identity(backbone: Backbone, weights: Path | None) -> str:
    """Return what tells a backbone's pretrained weights from others: a file's content, or a tag."""
    file = weights_file(backbone, weights)
    if file is None:
        return f"{backbone.source}:{backbone.architecture}.{backbone.weights}"
    return fingerprint(file)


def _match(cell: Cell, output: Path, checkpoint: Path) -> dict[str, Any]:
    top5 = evaluate_matching(
        cell.dataset, cell.detector(), cache_dir=_keypoints(output), checkpoint=checkpoint
    )
    return {"top5": top5.tolist()}


def _keypoints(output: Path) -> Path:
    return output / "keypoints"


def _finetune(
    cell: Cell, photos: Callable[[], Photos], path: Path, maps: Path, workers: int
) -> dict[str, Any]:
    recipe, checkpoint = cell.recipe, path.with_suffix(_CHECKPOINT)
    # Before the photos are decoded: its weights may be missing, or a package.
    loss = METHODS[cell.method].loss(recipe)
    model = on_first(build_classifier)(cell)
    on_first(_check_space)(model, recipe, checkpoint)
    on_first(lambda: photos() and None)()  # one that cannot be read costs this cell alone
    with in_step():
        train, validation, test = photos().train(cell.seed), photos().validation, photos().test
    with _memory_that_ran_out_explained():
        start = on_first(_start_from_photos)(cell, model, photos(), maps)
        model.load_state_dict(start, strict=False)
        head = Progress()
        if recipe.head_epochs:
            head = on_first(_train_head)(cell, model, loss, photos(), path, maps)
            model.load_state_dict(head.best_model)
        trainer = Trainer(
            model,
            loss,
            recipe,
            cell.compute,
            seed=cell.seed,
            checkpoint=checkpoint,
            workers=workers,
            title=cell.title,
            before=head,
            log=_log(cell, path, maps.parent),
        )
        progress = head if recipe.finetune == "head" else trainer.fit(train, validation)
        if isinstance(model.classifier, Directions):
            model.set_gallery(model.classifier.enrolled(cell.dataset.classes))
        score = trainer.score(test)
    _store_model(trainer.model, cell, score, path)
    return {
        "top5": score.top5.tolist(),
        "best_epoch": progress.best_epoch,
        "history": progress.history,
        "images_per_second": _images_per_second(progress, len(train)),
        "peak_bytes": progress.peak_bytes,
    }


def _enroll(cell: Cell, photos: Callable[[], Photos], path: Path, maps: Path) -> dict[str, Any]:
    """Score a gallery of the training photos."""
    model = build_classifier(cell)
    store = _map_store(cell, model, maps)
    with _memory_that_ran_out_explained():
        model = model.to(cell.compute.device)
        train = _plain_training_maps(cell, store)
        enroll_class_means(model, train, cell.dataset.classes, cell.compute)
        batches = DataLoader(photos().test, batch_size=cell.recipe.batch_size)
        scored = score(model, batches, cell.compute)
    _store_model(model, cell, scored, path)
    return {"top5": scored.top5.tolist()}


def _start_from_photos(
    cell: Cell, model: Classifier, photos: Photos, maps: Path
) -> dict[str, torch.Tensor]:
    """Give layers the start that training photos give; return the state of head and classifier."""
    recipe, directions = cell.recipe, model.classifier
    if recipe.start == "whitened" and isinstance(model.pool, LCA):
        store = _map_store(cell, model, maps)
        start_whitened(model.pool, store.training(photos.train(cell.seed), recipe))
    if isinstance(directions, Directions):
        train = _plain_training_maps(cell, _map_store(cell, model, maps))
        means = class_means(model.pool, train, cell.dataset.classes, cell.compute)
        directions.start_from(means)
    state = model.state_dict()
    return {name: state[name].cpu() for name in state if not name.startswith("backbone.")}


def _plain_training_maps(cell: Cell, store: MapStore) -> MapDataset:
    """Return maps of the training photos as they are; cut-outs are on grounds of the seed."""
    preprocessing, repeats = cell.network.preprocessing, cell.dataset.train_repeats
    photos = PhotoDataset(
        cell.dataset.train,
        preprocessing.transform(),
        repeats=repeats,
        seed=cell.seed,
        cache_side=preprocessing.kept_side,
        cache_bytes=2 * GIB if repeats > 1 else 0,  # the maps are kept, and photos in `Photos`
    )
    return store.plain(photos, "training")


def _map_store(cell: Cell, model: Classifier, maps: Path) -> MapStore:
    settings = {name: cell.settings[name] for name in _OF_MAPS}
    settings["augmentation"] = asdict(cell.recipe.augmentation)
    return MapStore(model.backbone.to(cell.compute.device), cell.compute, maps, settings)


def _train_head(
    cell: Cell, model: Classifier, loss: torch.nn.Module, photos: Photos, path: Path, maps: Path
) -> Progress:
    store = _map_store(cell, model, maps)
    validation = photos.validation
    return train_head(
        model,
        loss,
        cell.recipe,
        cell.compute,
        store.training(photos.train(cell.seed), cell.recipe),
        None if validation is None else store.plain(validation),
        seed=cell.seed,
        checkpoint=path.with_suffix(_HEAD_CHECKPOINT),
        title=cell.title,
        log=_log(cell, path, store.folder.parent),
    )


def check_tensorboard(asked: bool) -> None:
    """See that event files can be written where they are asked for; raises ValueError."""
    if asked and missing_packages(["tensorboard"]):
        raise ValueError(
            "--tensorboard is given, but tensorboard cannot be imported; "
            'pip install "lca-fused[tensorboard]" brings it'
        )


def _log(cell: Cell, path: Path, output: Path) -> Log | None:
    """Return what writes the event files, for the first process."""
    if not cell.tensorboard or rank():
        return None
    # Here, as nobody who does not ask for it needs tensorboard.
    from experiments.training.tensorboard import TensorBoard

    return TensorBoard(output / TENSORBOARD / cell.dataset.name / path.stem)


@on_first
def _store_model(model: Classifier, cell: Cell, score: Score, path: Path) -> None:
    model.describe(
        cell.dataset.classes,
        backbone=cell.network,
        training=dict(cell.settings),
        accuracy={"test": score.accuracy, "test_photos": len(cell.dataset.test)},
    )
    model.save_pretrained(model_folder(path))


def _check_space(model: Classifier, recipe: Recipe, checkpoint: Path) -> None:
    """See that the disk holds the trained model, a checkpoint and the next one beside it."""
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    # The weights as they are, their momentum and the best so far; and their moving average.
    copies = 3 + (recipe.ema_decay > 0)
    there = checkpoint.stat().st_size if checkpoint.exists() else 0
    check_space(checkpoint.parent, (2 * copies + 1) * weights - there, "model and checkpoints")


@contextmanager
def _memory_that_ran_out_explained() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not (isinstance(error, NoRoomError) or ran_out_of_memory(error)):
            raise
        raise ModelError(
            f"{str(error).splitlines()[0]} One photo at a time is tried where more do not fit, and "
            "it does not fit either: use a smaller --recipe.image-size or --backbone, or --device "
            "cpu; rows that are done stay stored, for their own recipe"
        ) from None


def _images_per_second(progress: Progress, photos_an_epoch: int) -> float | None:
    """Return the rate of the median epoch, the first left out: kernels are compiled in it."""
    seconds = progress.epoch_seconds[1:] or progress.epoch_seconds
    return photos_an_epoch / statistics.median(seconds) if seconds else None


@lru_cache(maxsize=1)
def _detector(name: str, weights: Path | None, device: torch.device) -> Detector:
    """Build a detector once for all its cells: its settings alone need its weights read."""
    return make_detector(name, weights=weights, device=device)
