"""Backbones by name: any of timm's and torchvision's, and the small one of this project."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import timm
import torchvision
from timm.models import get_pretrained_cfg, is_model
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.transforms import InterpolationMode

from lca_fused.preprocessing import Preprocessing

_LONGER_NAMES = {
    "embedded": "lca_fused:small_resnet",
    "mobilenet-v2": "torchvision:mobilenet_v2.IMAGENET1K_V1",
    "mobilenet-v2-tf": "torchvision:mobilenet_v2.IMAGENET1K_V1",
    "squeezenet1-0": "torchvision:squeezenet1_0.IMAGENET1K_V1",
    "resnet50": "torchvision:resnet50.IMAGENET1K_V1",
    "resnext101-32x8d": "torchvision:resnext101_32x8d.IMAGENET1K_V1",
    "resnext101-32x8d-wsl": "timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k",
}
# Arguments of timm.create_model that are not the network's: a description is data, and must not
# make it read files, which may be pickles.
_NOT_OF_THE_NETWORK = frozenset(
    {"pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
)

# TensorFlow's weights of torchvision's network: a class more, and an input scaled to -1..1.
_OF_TENSORFLOW = "mobilenet-v2-tf"
SHORT_NAMES = tuple(_LONGER_NAMES)
"""Names that stand for a longer one."""


class BackboneError(ValueError):
    """There is no such backbone, or it cannot be built as asked; the message says what to do."""


@dataclass(frozen=True)
class Backbone:
    """How a network is made, and what it wants of a photo.

    Attributes:
        name: the name it was asked for by.
        source: "timm", "torchvision" or "lca_fused".
        architecture: the name of its builder in that source.
        weights: the tag or enum of its pretrained weights there; empty where there are none.
        preprocessing: the one that the weights were trained with, or their source's default.
        licence: the licence of the weights, as their source gives it; empty where it gives none.
        arguments: the arguments of the builder.
    """

    name: str
    source: str
    architecture: str
    weights: str
    preprocessing: Preprocessing
    licence: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Return the untrained network: a classifier, or one that ends with its feature map.

        Raises:
            BackboneError: its builder does not take the arguments.
        """
        try:
            return _BUILDERS[self.source](self)
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise BackboneError(
                f"{self.name} cannot be built with {dict(self.arguments)}: {error}"
            ) from error

    def at(self, image_size: int | None, crop: float | None = None) -> Backbone:
        """Return the backbone for photos of another size or crop, where that is given.

        A network whose input size is fixed (a vision transformer) is built for the new one.
        """
        given = {"image_size": image_size, "crop": crop}
        changed: dict[str, Any] = {
            name: value for name, value in given.items() if value is not None
        }
        if not changed:
            return self
        arguments = dict(self.arguments)
        if self.source == "timm" and image_size is not None and _fixed_size(self):
            arguments["img_size"] = image_size
        preprocessing = replace(self.preprocessing, **changed)
        return replace(self, preprocessing=preprocessing, arguments=arguments)


def find_backbone(name: str, arguments: Mapping[str, Any] | None = None) -> Backbone:
    """Return the backbone of a name; nothing is built or fetched.

    Args:
        name: "timm:NAME" or "timm:NAME.TAG", "torchvision:NAME" or "torchvision:NAME.WEIGHTS" (a
            weights enum's member; DEFAULT without), or one of `SHORT_NAMES`.
        arguments: arguments of the builder, beside its defaults.

    Raises:
        BackboneError: there is no such backbone; the most similar names are given.
    """
    refused = sorted(_NOT_OF_THE_NETWORK & set(arguments or {}))
    if refused:
        raise BackboneError(
            f"{name} has the arguments {', '.join(refused)}, which are no network's"
        )
    source, _, rest = _LONGER_NAMES.get(name, name).partition(":")
    if source not in _FINDERS or not rest:
        raise BackboneError(
            f"backbone is {name!r}; expected timm:NAME, torchvision:NAME or one of "
            f"{', '.join(SHORT_NAMES)}"
        )
    found = replace(_FINDERS[source](name, rest), arguments=dict(arguments or {}))
    if name == _OF_TENSORFLOW:
        half = (0.5, 0.5, 0.5)
        scaled = replace(found.preprocessing, mean=half, std=half)
        return replace(found, preprocessing=scaled, arguments={"num_classes": 1001})
    return found


def small_resnet() -> nn.Module:
    """Return a ResNet with one torchvision block per stage: (N, 3, S, S) -> (N, 128, S/16, S/16).

    Small enough to be pretrained on generated products in a minute on two cores; at 112 px its
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


def _find_timm(name: str, model: str) -> Backbone:
    architecture, _, tag = model.partition(".")
    if not is_model(architecture):
        raise BackboneError(f"timm {timm.__version__} has no {architecture!r}{_similar(model)}")
    try:
        config = get_pretrained_cfg(model)
    except RuntimeError as error:
        raise BackboneError(f"{name}: {error}{_similar(model)}") from error
    if config is None:  # an architecture without weights
        return Backbone(name, "timm", architecture, "", Preprocessing())
    channels, height, width = config.input_size
    if channels != 3:
        raise BackboneError(f"{name} takes images of {channels} channels; expected 3 (RGB)")
    return Backbone(
        name,
        "timm",
        architecture,
        tag or config.tag or "",
        Preprocessing(
            image_size=min(height, width),
            crop=config.crop_pct,
            # timm's "random" and "lanczos" are of training, and of Pillow alone.
            interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
            keep_ratio=config.crop_mode != "squash",
            mean=_three(config.mean),
            std=_three(config.std),
        ),
        licence=config.license or "",
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _find_torchvision(name: str, model: str) -> Backbone:
    architecture, _, member = model.partition(".")
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise BackboneError(f"torchvision has no {architecture!r}{_suggest(architecture, known)}")
    enum = torchvision.models.get_model_weights(architecture)
    if member and member not in enum.__members__:
        raise BackboneError(
            f"torchvision's {architecture} has no weights {member!r}; expected one of "
            f"{', '.join(enum.__members__)}"
        )
    weights = enum[member or "DEFAULT"]
    preset = weights.transforms()
    (image_size,), (resized,) = preset.crop_size, preset.resize_size
    bicubic = preset.interpolation == InterpolationMode.BICUBIC
    return Backbone(
        name,
        "torchvision",
        architecture,
        weights.name,
        Preprocessing(
            image_size=image_size,
            crop=image_size / resized,
            interpolation="bicubic" if bicubic else "bilinear",
            mean=_three(preset.mean),
            std=_three(preset.std),
        ),
    )


def _find_own(name: str, model: str) -> Backbone:
    if model != small_resnet.__name__:
        raise BackboneError(f"lca_fused has no {model!r}; expected {small_resnet.__name__}")
    return Backbone(name, "lca_fused", model, "", Preprocessing(image_size=112))


def _build_timm(backbone: Backbone) -> nn.Module:
    tagged = f"{backbone.architecture}.{backbone.weights}".rstrip(".")
    return timm.create_model(tagged, pretrained=False, **backbone.arguments)


def _build_torchvision(backbone: Backbone) -> nn.Module:
    return torchvision.models.get_model(backbone.architecture, weights=None, **backbone.arguments)


def _build_own(_: Backbone) -> nn.Module:
    return small_resnet()


_FINDERS: dict[str, Callable[[str, str], Backbone]] = {
    "timm": _find_timm,
    "torchvision": _find_torchvision,
    "lca_fused": _find_own,
}
_BUILDERS: dict[str, Callable[[Backbone], nn.Module]] = {
    "timm": _build_timm,
    "torchvision": _build_torchvision,
    "lca_fused": _build_own,
}


def _fixed_size(backbone: Backbone) -> bool:
    tagged = f"{backbone.architecture}.{backbone.weights}".rstrip(".")
    config = get_pretrained_cfg(tagged, allow_unregistered=True)
    return bool(config is not None and config.fixed_input_size)


def _similar(model: str) -> str:
    return _suggest(model, timm.list_models() + timm.list_pretrained())


def _suggest(name: str, known: list[str]) -> str:
    similar = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return f"; similar names are {', '.join(similar)}" if similar else ""
