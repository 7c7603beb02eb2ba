"""Pretrained convnets: how each is built, what it was fed in training, where its weights are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from experiments.storage import CheckpointError, load_checkpoint
from lca_fused.models import attach_lca

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class WeightsError(ValueError):
    """Pretrained weights are missing or of another network; the message says what to do."""


class WeightsNotGivenError(WeightsError):
    """The backbone's weights are the user's to give, and were not."""


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
        weights_url: where torchvision keeps the weights; None when they must be given.
        hint: what to do when weights must be given and are not.
    """

    build: Callable[[], nn.Module]
    normalization: Normalization = Normalization()
    weights_url: str | None = None
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
}
"""Backbones by the name `--backbone` takes."""


def load_feature_map(name: str, weights: Path | None) -> nn.Module:
    """Build the backbone `name` with its pretrained weights, up to its feature map.

    Args:
        name: key of `BACKBONES`.
        weights: file of a state dict; None takes torchvision's, from its cache or its server.

    Returns:
        Images (N, 3, S, S) -> map (N, C, H, W).

    Raises:
        WeightsError: unknown backbone, a missing file, or weights of another network (the keys
            that do not fit are named).
    """
    if name not in BACKBONES:
        raise WeightsError(f"backbone is {name!r}; expected one of {sorted(BACKBONES)}")
    backbone = BACKBONES[name]
    network = backbone.build()
    _load_strictly(network, _read_weights(name, backbone, weights), name, weights)
    # attach_lca knows where the map of each family of networks ends.
    return attach_lca(network, num_classes=0).backbone


def fingerprint(weights: Path | None) -> str:
    """Return what identifies a weights file: the start of its sha256, or "torchvision"."""
    if weights is None:
        return "torchvision"
    _check_exists(weights)
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]


def _read_weights(name: str, backbone: Backbone, weights: Path | None) -> dict[str, Tensor]:
    if weights is not None:
        _check_exists(weights)
        try:
            return load_checkpoint(weights)
        except CheckpointError as error:
            raise WeightsError(str(error)) from error
    if backbone.weights_url is None:
        raise WeightsNotGivenError(f"{name} needs --weights FILE: {backbone.hint}")
    try:
        return torch.hub.load_state_dict_from_url(
            backbone.weights_url, map_location="cpu", weights_only=True, check_hash=True
        )
    except (OSError, RuntimeError) as error:  # no connection; not the hash in the file's name
        raise WeightsError(
            f"the weights of {name} could not be fetched from {backbone.weights_url} ({error}); "
            "download that file elsewhere and give its path with --weights"
        ) from error


def _check_exists(weights: Path) -> None:
    if not weights.is_file():
        raise WeightsError(f"there is no weights file {weights}; give its path with --weights")


def _load_strictly(
    model: nn.Module, state: dict[str, Tensor], name: str, weights: Path | None
) -> None:
    expected = model.state_dict()
    problems = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in expected
            if key in state and state[key].shape != expected[key].shape
        ],
    }
    described = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in problems.items()
        if keys
    ]
    if described:
        raise WeightsError(
            f"{weights or 'the file'} does not hold weights of {name}: {'; '.join(described)}; "
            "give the file that belongs to the backbone, or another --backbone"
        )
    model.load_state_dict(state)
