"""Pretrained convnets: how each is built, what it was fed in training, where its weights are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from experiments.networks.weights import WeightsError as WeightsError
from experiments.networks.weights import WeightsNotGivenError as WeightsNotGivenError
from experiments.networks.weights import fetch_weights, load_strictly, read_weights
from experiments.networks.weights import fingerprint as fingerprint
from lca_fused.models import attach_lca

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalization:
    """Input scaling a backbone was trained with: (image in 0..1 - mean) / std, RGB."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class Backbone:
    """A pretrained convnet.

    Attributes:
        build: makes the untrained network whose state dict the weights are: a classifier, or
            a network that ends with its feature map.
        normalization: of its input.
        weights_url: where the weights are fetched from; None when they must be given.
        licence: of the weights, where it is not as free as the code's; logged when they are used.
        hint: what to do when weights must be given and are not.
    """

    build: Callable[[], nn.Module]
    normalization: Normalization = Normalization()
    weights_url: str | None = None
    licence: str = ""
    hint: str = ""


def small_resnet() -> nn.Module:
    """Return a ResNet of one torchvision BasicBlock a stage: (N, 3, S, S) -> (N, 128, S/16, S/16).

    Small enough to be pretrained on the embedded data in a minute on two cores; at 112 px its
    maps are the 7x7 of the paper's backbones at 224 px.
    """
    return nn.Sequential(
        nn.Conv2d(3, 32, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=2),
        BasicBlock(32, 32),
        BasicBlock(32, 64, stride=2, downsample=_downsample(32, 64)),
        BasicBlock(64, 128, stride=2, downsample=_downsample(64, 128)),
    )


def _downsample(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _torchvision(name: str, num_classes: int = 1000) -> Callable[[], nn.Module]:
    return partial(torchvision.models.get_model, name, weights=None, num_classes=num_classes)


def _with_torchvision_weights(name: str, weights: str) -> Backbone:
    url = torchvision.models.get_model_weights(name)[weights].url
    return Backbone(_torchvision(name), weights_url=url)


BACKBONES: dict[str, Backbone] = {
    "embedded": Backbone(
        small_resnet,
        hint="run_all.py pretrains it on the embedded data",
    ),
    "mobilenet-v2": _with_torchvision_weights("mobilenet_v2", "IMAGENET1K_V1"),
    "mobilenet-v2-tf": Backbone(
        _torchvision("mobilenet_v2", num_classes=1001),
        Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        hint="a torchvision mobilenet_v2(num_classes=1001) state dict converted from TensorFlow",
    ),
    "squeezenet1-0": _with_torchvision_weights("squeezenet1_0", "IMAGENET1K_V1"),
    "resnet50": _with_torchvision_weights("resnet50", "IMAGENET1K_V1"),
    "resnext101-32x8d": _with_torchvision_weights("resnext101_32x8d", "IMAGENET1K_V1"),
    "resnext101-32x8d-wsl": Backbone(
        _torchvision("resnext101_32x8d"),
        weights_url="https://download.pytorch.org/models/ig_resnext101_32x8-c38310e5.pth",
        licence="CC BY-NC 4.0, no commercial use (WSL-Images, Facebook)",
    ),
}
"""Backbones by the name `--backbone` takes."""


def load_feature_map(name: str, weights: Path | None) -> nn.Module:
    """Build the backbone `name` with its pretrained weights, up to its feature map.

    Args:
        name: key of `BACKBONES`.
        weights: file of a state dict, or of what trainers put around one; None takes them from
            torch's cache or their server. The layers after the map need not fit.

    Returns:
        Images (N, 3, S, S) -> map (N, C, H, W).

    Raises:
        WeightsError: unknown backbone, a missing file, or weights of another network (the keys
            that do not fit are named).
        WeightsNotGivenError: no file was given, and the weights cannot be fetched.
    """
    if name not in BACKBONES:
        raise WeightsError(f"backbone is {name!r}; expected one of {sorted(BACKBONES)}")
    backbone = BACKBONES[name]
    network = backbone.build()
    state = _state_dict(name, backbone, weights, list(network.state_dict()))
    # attach_lca knows where the map of each family of networks ends.
    features = attach_lca(network, num_classes=0).backbone
    classifier = _outside(features, network)
    _refuse_another(name, state, network, classifier, weights)
    source = str(weights or backbone.weights_url)
    load_strictly(network, state, name, source, unused=classifier)
    if backbone.licence:
        _log_licence(name, backbone.licence)
    return features


def _outside(features: nn.Module, network: nn.Module) -> list[str]:
    """Return the names of the network's tensors that its feature map does not depend on."""
    inside = {id(tensor) for tensor in (*features.parameters(), *features.buffers())}
    named = (*network.named_parameters(), *network.named_buffers())
    return [key for key, tensor in named if id(tensor) not in inside]


def _refuse_another(
    name: str,
    state: Mapping[str, Tensor],
    network: nn.Module,
    classifier: Collection[str],
    weights: Path | None,
) -> None:
    """Refuse weights whose classifier says that they are another backbone's of the same layers.

    That one's input may be scaled in another way, which no error would tell of.
    """
    shapes = {key: state[key].shape for key in classifier if key in state}
    own = network.state_dict()
    if all(shape == own[key].shape for key, shape in shapes.items()):
        return
    for other, backbone in BACKBONES.items():
        if backbone.normalization == BACKBONES[name].normalization:
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


def _state_dict(
    name: str, backbone: Backbone, weights: Path | None, expected: Collection[str]
) -> dict[str, Tensor]:
    if weights is not None:
        return read_weights(weights, expected)
    if backbone.weights_url is None:
        raise WeightsNotGivenError(f"{name} needs --weights FILE: {backbone.hint}")
    return fetch_weights(name, backbone.weights_url)


@cache
def _log_licence(name: str, licence: str) -> None:
    """Log it once, not for every cell."""
    logger.info("the weights of %s are under %s", name, licence)
