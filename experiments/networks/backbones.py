"""Pretrained backbones: a network by its name, with the weights its source or a file gives."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from experiments.networks.weights import (
    WeightsError,
    WeightsNotGivenError,
    fetch_weights,
    given_as,
    load_strictly,
    read_weights,
)
from lca_fused.backbones import SHORT_NAMES, Backbone, BackboneError, find_backbone
from lca_fused.feature_map import feature_map, unused_names

logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).with_name("small_resnet.safetensors")
"""Weights of the small network of our own, pretrained on generated products."""

_OF_BUNDLED = ("embedded", "lca_fused:small_resnet")

_HINTS = {
    "mobilenet-v2-tf": "a torchvision mobilenet_v2(num_classes=1001) state dict converted from "
    "TensorFlow",
}
"""What to do for backbones whose weights no server gives."""


def load_network(
    name: str, weights: Path | None = None, image_size: int | None = None
) -> nn.Module:
    """Build the backbone `name` with its pretrained weights.

    Args:
        name: name of the backbone, as `find_backbone` takes it.
        weights: file of a state dict, or of what trainers put around one; None takes the weights
            from where timm or torchvision do. The layers after the map need not fit.
        image_size: side of the photos in pixels, where the network must be built for another size
            than its own.

    Returns:
        The whole network; `lca_fused.feature_map` says where its map ends.

    Raises:
        WeightsError: unknown backbone, a missing file, or weights of another network (the keys
            that do not fit are named).
        WeightsNotGivenError: no file was given, and the weights cannot be fetched.
    """
    try:
        backbone = find_backbone(name).at(image_size)
        network = backbone.build()
    except BackboneError as error:
        raise WeightsError(str(error)) from error
    if backbone.licence:
        _log_licence(name, backbone.licence)
    if weights is None and backbone.source == "timm":
        return _fetched_from_timm(backbone)
    classifier = unused_names(network)
    weights = weights_file(backbone, weights)
    if weights is None:
        state, source = _fetched_from_torchvision(backbone)
    else:
        state, source = read_weights(weights, list(network.state_dict())), str(weights)
        state = _in_timms_names(state, network, weights)
        _refuse_another(name, state, network, classifier, weights)
    load_strictly(network, state, name, source, unused=classifier)
    return network


def weights_file(backbone: Backbone, given: Path | None) -> Path | None:
    """Return the file of a backbone's weights: that given, or ours; None for those fetched."""
    return BUNDLED if given is None and backbone.name in _OF_BUNDLED else given


def load_feature_map(name: str, weights: Path | None) -> nn.Module:
    """Return `load_network` up to its map: images (N, 3, S, S) -> map (N, C, H, W)."""
    return feature_map(load_network(name, weights))


def weights_source(name: str) -> str:
    """Say where the weights of a backbone come from when no file is given."""
    backbone = find_backbone(name)
    if name in _HINTS:
        return _HINTS[name]
    if name in _OF_BUNDLED:
        return "of this repository (python -m experiments.training.pretraining made them)"
    source = f"{backbone.source}'s {backbone.architecture}, {backbone.weights}"
    return f"{source} ({backbone.licence})" if backbone.licence else source


def weights_url(backbone: Backbone) -> str:
    """Return where torchvision has a backbone's weights."""
    return torchvision.models.get_model_weights(backbone.architecture)[backbone.weights].url


def _fetched_from_timm(backbone: Backbone) -> nn.Module:
    tagged = f"{backbone.architecture}.{backbone.weights}".rstrip(".")
    try:
        return timm.create_model(tagged, pretrained=True, **backbone.arguments)
    except Exception as error:  # of timm, the Hub's client, or what they fetch with
        reason = " ".join(f"{error}".split())
        raise WeightsNotGivenError(
            f"the weights of {backbone.name} could not be fetched by timm ({reason}); download "
            f"them elsewhere and give their path: {given_as(backbone.name)}"
        ) from error


def _fetched_from_torchvision(backbone: Backbone) -> tuple[dict[str, Tensor], str]:
    if backbone.name in _HINTS:
        raise WeightsNotGivenError(f"{backbone.name} needs --weights FILE: {_HINTS[backbone.name]}")
    url = weights_url(backbone)
    return fetch_weights(backbone.name, url), url


def _in_timms_names(state: dict[str, Tensor], network: Any, weights: Path) -> dict[str, Tensor]:
    """Return weights as timm's network takes them: of the authors' names, or of other sizes."""
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return state
    try:
        return translate(state, network)
    except Exception as error:  # of weights that are not of this network
        raise WeightsError(
            f"{weights} does not hold weights of {type(network).__name__}: {error}"
        ) from error


def _refuse_another(
    name: str,
    state: Mapping[str, Tensor],
    network: nn.Module,
    classifier: Collection[str],
    weights: Path,
) -> None:
    """Refuse weights whose classifier says that they are another backbone's of the same layers.

    That one's input may be scaled in another way, which no error would tell of.
    """
    shapes = {key: state[key].shape for key in classifier if key in state}
    own = network.state_dict()
    if all(shape == own[key].shape for key, shape in shapes.items()):
        return
    for other in SHORT_NAMES:
        backbone = find_backbone(other)
        if backbone.preprocessing == find_backbone(name).preprocessing:
            continue
        with torch.device("meta"):
            theirs = backbone.build().state_dict()
        if theirs.keys() == own.keys() and all(
            shape == theirs[key].shape for key, shape in shapes.items()
        ):
            raise WeightsError(
                f"{weights} does not hold weights of {name}: its classifier is that of {other}; "
                f"give --backbone {other}"
            )


@cache
def _log_licence(name: str, licence: str) -> None:
    """Log it once, not for every cell."""
    logger.info("the weights of %s are under %s", name, licence)
