"""A stored model, `<cell>.model.pt`, back as the network that it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from experiments.data.augment import Augmentation
from experiments.networks.backbones import BACKBONES, Normalization
from experiments.networks.model import ModelError, ProductClassifier
from experiments.networks.weights import WeightsError, load_strictly
from experiments.networks.wrapped import unwrap
from experiments.storage import CheckpointError, load_checkpoint
from experiments.study.methods import METHODS
from experiments.training.recipe import Recipe
from lca_fused.models import attach_lca

_PARTS = {"model": dict, "classes": list, "settings": dict}
_Settings = TypeVar("_Settings", Recipe, Augmentation)


@dataclass(frozen=True)
class LoadedClassifier:
    """A finetuned classifier and what its photos must go through.

    Attributes:
        model: on the CPU, in evaluation mode; (N, 3, S, S) normalised images -> (N, K) logits.
        classes: names of the K classes, in the order of the logits.
        normalization: of the images.
        recipe: it was finetuned with; `image_size` is S.
        settings: all that was stored of its training, as plain values.
    """

    model: ProductClassifier
    classes: tuple[str, ...]
    normalization: Normalization
    recipe: Recipe
    settings: Mapping[str, Any]


def load_classifier(path: str | Path) -> LoadedClassifier:
    """Rebuild the classifier in a `*.model.pt`; fetches no weights and runs no code from the file.

    Tensors that were saved from a compiled or data-parallel model ("_orig_mod.", "module.") are
    accepted.

    Raises:
        CheckpointError: there is no such file; it is not a stored model; it names a method or a
            backbone that is not known here; its tensors are not those of the network it names, or
            not finite.
    """
    path = Path(path)
    stored = _read(path)
    settings: dict[str, Any] = stored["settings"]
    classes = _classes(stored["classes"], path)
    recipe = _recipe(settings, path)
    model = _untrained(settings, recipe, len(classes), path)
    state = unwrap(stored["model"], list(model.state_dict()), str(path))
    _load(model, state, settings["backbone"], path)
    return LoadedClassifier(
        model=model.eval(),
        classes=classes,
        normalization=BACKBONES[settings["backbone"]].normalization,
        recipe=recipe,
        settings=settings,
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"there is no file {path}; expected a stored model, <output>/cells/.../*.model.pt"
        )
    stored = load_checkpoint(path)
    wrong = (
        [
            f"{name} is {'missing' if name not in stored else type(stored[name]).__name__}"
            for name, kind in _PARTS.items()
            if not isinstance(stored.get(name), kind)
        ]
        if isinstance(stored, dict)
        else [f"it holds a {type(stored).__name__}"]
    )
    if wrong:
        raise CheckpointError(
            f"{path} is not a stored model ({', '.join(wrong)}); expected a *.model.pt, which "
            "holds model, classes and settings; a *.checkpoint.pt is a training under way"
        )
    return stored


def _classes(names: list[Any], path: Path) -> tuple[str, ...]:
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(
            f"{path} has classes {names[:5]}; expected the names of at least one class"
        )
    return tuple(names)


def _recipe(settings: dict[str, Any], path: Path) -> Recipe:
    recipe = settings.get("recipe")
    if not isinstance(recipe, dict):
        raise CheckpointError(
            f"{path} has no recipe in its settings; expected that of its training"
        )
    try:
        return _from_dict(
            Recipe,
            recipe | {"augmentation": _from_dict(Augmentation, recipe.get("augmentation", {}))},
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the recipe in {path} cannot be used: {error}") from error


def _from_dict(kind: type[_Settings], values: dict[str, Any]) -> _Settings:
    unknown = sorted(set(values) - {field.name for field in fields(kind)})
    if unknown:
        raise ValueError(
            f"{kind.__name__} has no {', '.join(unknown)}: it was stored by another version of "
            "this project; use that one, or a newer one"
        )
    arguments: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return kind(**arguments)


def _untrained(
    settings: dict[str, Any], recipe: Recipe, num_classes: int, path: Path
) -> ProductClassifier:
    for name, known in (("method", METHODS), ("backbone", BACKBONES)):
        if settings.get(name) not in known:
            raise CheckpointError(
                f"{path} has {name} {settings.get(name)!r}; expected one of {', '.join(known)}"
            )
    head = METHODS[settings["method"]].head
    if head is None:
        raise CheckpointError(
            f"{path} has method {settings['method']!r}, keypoint matching, which has no network"
        )
    # Building draws initial weights, which are replaced at once; the caller's generator is not
    # to notice.
    with torch.random.fork_rng(devices=[]):
        network = BACKBONES[settings["backbone"]].build()
        features = attach_lca(network, num_classes=0).backbone
        try:
            return ProductClassifier(features, head, num_classes, recipe.image_size)
        except ModelError as error:
            raise CheckpointError(f"{path} describes no usable network: {error}") from error


def _load(model: ProductClassifier, state: dict[str, Any], backbone: str, path: Path) -> None:
    no_tensors = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if no_tensors:
        raise CheckpointError(f"{path} holds no tensor as {no_tensors[0]} of its model")
    try:
        load_strictly(model, state, f"a classifier on {backbone}", source=str(path))
    except WeightsError as error:
        raise CheckpointError(str(error)) from error
    spoilt = [key for key, value in state.items() if not value.isfinite().all()]
    if spoilt:
        raise CheckpointError(
            f"{path} holds numbers that are not finite in {', '.join(spoilt[:3])}"
            f"{', ...' if len(spoilt) > 3 else ''}; its training went wrong: take another model"
        )
