"""Where a classifier's feature map ends: torchvision's, timm's, or any network that returns one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lca_fused.evaluation import evaluation_mode
from lca_fused.wrapping import same_numbers

# The children that make the feature map, in forward order, of torchvision's classifiers; what
# they hold beside these is pooling and classifier.
_TORCHVISION = {
    "AlexNet": ("features",),
    "ConvNeXt": ("features",),
    "DenseNet": ("features",),
    "EfficientNet": ("features",),
    "MNASNet": ("layers",),
    "MobileNetV2": ("features",),
    "MobileNetV3": ("features",),
    "RegNet": ("stem", "trunk_output"),
    "ResNet": ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    "ShuffleNetV2": ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"),
    "SqueezeNet": ("features",),
    "SwinTransformer": ("features", "norm", "permute"),
    "VGG": ("features",),
}
_TIMM_METHODS = ("forward_features", "forward_head", "reset_classifier")
_SUPPORTED = (
    f"supported are torchvision's {', '.join(_TORCHVISION)}, timm models whose forward_features "
    "yields a map or the tokens of one, and modules that return a feature map (N, C, H, W). Cut "
    "the model before its global pooling and pass that, or put lca_fused.LCA on the map yourself"
)


def feature_map(model: nn.Module) -> nn.Module:
    """Return the part of a classifier that makes its feature map, images -> (N, C, H, W).

    What follows the map is left out: pooling, classifier, and layers between them. A normalisation
    that stands behind the pooling (ConvNeXt's, that of a vision transformer which averages its
    tokens) is kept and acts on the map. The tokens of a vision transformer become the map that
    their patches were; class and register tokens are left out.

    The map is found with one small image in evaluation mode, which leaves BatchNorm's statistics
    and the modules' modes as they are. Parameters are shared with `model`, which stays whole.

    Args:
        model: a torchvision classifier, a timm classifier whose features can be a map, or any
            module that returns a feature map (N, C, H, W).

    Raises:
        ValueError: the model is wrapped (torch.compile, data parallel), fails on the images it is
            tried with or maps them to 1x1.
        TypeError: the model is not an nn.Module or does not yield a map (N, C, H, W).
    """
    return probe(model)[0]


def probe(model: nn.Module) -> tuple[nn.Module, Tensor, Tensor]:
    """Return `feature_map(model)`, an image that it takes, and that image's map (1, C, H, W)."""
    _check_model(model)
    failure: Exception | None = None
    failed = found = None
    with evaluation_mode(model), same_numbers(model), torch.no_grad():
        for image in _images(model):
            try:
                backbone = _backbone(model, image)
                found = backbone(image)
            except _NoMapError as error:
                raise TypeError(str(error)) from error
            except Exception as error:  # whatever the model raises, another size may do
                if failure is None:
                    failure, failed = error, tuple(image.shape)
                continue
            _check_map(model, image, found)
            if found.shape[2:] != (1, 1):
                return backbone, image, found
    if found is None:
        raise ValueError(
            f"{type(model).__name__} fails on an image of shape {failed}: {failure}; {_SUPPORTED}"
        ) from failure
    raise ValueError(
        f"{type(model).__name__} maps an image of shape {tuple(image.shape)} to 1x1, which has no "
        f"rectangles; {_SUPPORTED}"
    )


def inside(backbone: nn.Module | None) -> tuple[nn.Module | None, str]:
    """Return the model that users know in a backbone, and what its parameters' names begin with."""
    if isinstance(backbone, TimmMap):
        return backbone.model, "backbone.model."
    return backbone, "backbone."


def unused_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters and buffers that a model's feature map does without."""
    backbone, image, _ = probe(model)
    with same_numbers(model):
        needed = _reached_parameters(backbone, image) | set(map(id, backbone.buffers()))
    named = (*model.named_parameters(), *model.named_buffers())
    return [name for name, tensor in named if id(tensor) not in needed]


def drop_what_follows(backbone: nn.Module, image: Tensor) -> None:
    """Take from a timm model the modules with no share in its map, lest they wait for gradients."""
    if isinstance(backbone, TimmMap):
        backbone.drop_head()
        with same_numbers(backbone):
            reached = _reached_parameters(backbone, image)
        _drop_unreached(backbone, reached)
        for parameter in backbone.parameters():  # a class token that no patch looks at
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in reached)


class TimmMap(nn.Module):
    """A timm model's forward_features, and the normalisation of its head, as (N, C, H, W).

    The head itself is never called, so resetting it has no effect on the map.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        self.norm: nn.Module = _head_norm(model) or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the map (N, C, H, W) of images (N, channels, height, width)."""
        x = self.norm(self.model.forward_features(images))
        return x.permute(0, 3, 1, 2) if self.channels_last else x

    def drop_head(self) -> None:
        """Take the classifier, and the normalisation that acts on the map here, from the model."""
        self.model.reset_classifier(0)
        for owner, name in _HEAD_NORMS:
            holder = getattr(self.model, owner, None) if owner else self.model
            if holder is not None and getattr(holder, name, None) is self.norm:
                setattr(holder, name, nn.Identity())


class TokenMap(TimmMap):
    """The patch tokens of a timm vision transformer, as the map (N, C, H, W) that they are.

    timm itself puts them back in rows and columns (`forward_intermediates`), for images of any
    shape that the model takes.
    """

    def __init__(self, model: nn.Module, final_norm: bool) -> None:
        super().__init__(model)
        self.final_norm = final_norm

    def forward(self, images: Tensor) -> Tensor:
        """Return the map (N, C, H, W) of images (N, channels, height, width)."""
        (x,) = self.model.forward_intermediates(
            images, indices=1, norm=self.final_norm, intermediates_only=True
        )
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


# The attributes in which timm's models keep the normalisation between pooling and classifier.
_HEAD_NORMS = (("head", "norm"), ("", "fc_norm"))


def _head_norm(model: nn.Module) -> nn.Module | None:
    """Return the normalisation behind the pooling of a timm model that fits its map, if any."""
    for owner, name in _HEAD_NORMS:
        norm = getattr(getattr(model, owner, None) if owner else model, name, None)
        sizes = {p.numel() for p in norm.parameters()} if isinstance(norm, nn.Module) else set()
        if sizes == {model.num_features}:
            return norm
    return None


class _NoMapError(Exception):
    """The features of a model are no map."""


def _backbone(model: nn.Module, image: Tensor) -> nn.Module:
    """Return a module that makes the feature map of `model` from images, if anything does."""
    family = _torchvision_family(model)
    if family is not None:
        return _torchvision_backbone(model, family)
    return _timm_backbone(model, image) if _is_timm(model) else model


def _timm_backbone(model: Any, image: Tensor) -> TimmMap:
    features = model.forward_features(image)
    if not isinstance(features, Tensor) or features.dim() != 3:
        return TimmMap(model)
    for final_norm in (True, False):  # whether forward_features ends with the norm
        tokens = TokenMap(model, final_norm)
        norm, tokens.norm = tokens.norm, nn.Identity()
        try:
            found = tokens(image).flatten(2).transpose(1, 2)
        except (AttributeError, AssertionError):  # no map of its tokens, or none with the norm
            continue
        if _are_last(found, features):
            tokens.norm = norm
            return tokens
    raise _NoMapError(
        f"the forward_features of {type(model).__name__} turns an image of shape "
        f"{tuple(image.shape)} into {tuple(features.shape)}, tokens that are no feature map "
        f"(N, C, H, W); {_SUPPORTED}"
    )


def _are_last(patches: Tensor, tokens: Tensor) -> bool:
    """Return whether `tokens`, (1, L, C), end with `patches`."""
    last = tokens[:, -patches.shape[1] :]
    if patches.shape != last.shape or tokens.is_meta:  # which has shapes alone
        return patches.shape == last.shape
    return torch.allclose(patches, last, atol=1e-4, rtol=1e-3, equal_nan=True)


def _torchvision_backbone(model: nn.Module, family: str) -> nn.Sequential:
    children = OrderedDict((name, model.get_submodule(name)) for name in _TORCHVISION[family])
    norm = getattr(getattr(model, "classifier", None), "0", None)
    if isinstance(norm, nn.LayerNorm):  # ConvNeXt's, between its pooling and its linear layer
        children["norm"] = norm
    if family == "DenseNet":
        children["relu"] = nn.ReLU(inplace=True)  # a function in DenseNet.forward
    backbone = nn.Sequential(children)
    backbone._parameters.update(model._parameters)  # of the model itself: the user's
    backbone._buffers.update(model._buffers)
    backbone._non_persistent_buffers_set |= model._non_persistent_buffers_set
    for name, value in vars(model).items():
        if not hasattr(backbone, name):
            setattr(backbone, name, value)
    return backbone


def _torchvision_family(model: nn.Module) -> str | None:
    """Return the name in `_TORCHVISION` of the class whose forward pass `model` runs."""
    for cls in type(model).__mro__:
        if cls.__module__.startswith("torchvision.models.") and cls.__name__ in _TORCHVISION:
            same_forward = all(
                getattr(type(model), name, None) is getattr(cls, name, None)
                and name not in vars(model)
                for name in ("forward", "_forward_impl")
            )
            return cls.__name__ if same_forward else None
    return None


def _is_timm(model: nn.Module) -> bool:
    methods = all(callable(getattr(model, name, None)) for name in _TIMM_METHODS)
    return methods and hasattr(model, "num_features")


def _images(model: nn.Module) -> Iterator[Tensor]:
    """Yield blank images to try, in the dtype and on the device of `model`."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = getattr(model, "in_chans", 3 if first is None else first.in_channels)
    timm_config = getattr(model, "default_cfg", None) or {}
    sizes = [
        getattr(getattr(model, "patch_embed", None), "img_size", None),  # timm's fixed sizes
        (timm_config.get("input_size") or (128, 128))[-2:],
        (224, 224),
    ]
    for size in sizes:
        if size is not None:
            yield torch.zeros(1, channels, *size, device=parameter.device, dtype=parameter.dtype)


def _check_map(model: nn.Module, image: Tensor, found: object) -> None:
    if isinstance(found, Tensor) and found.dim() == 4:
        return
    if isinstance(found, Tensor):
        given = f"a tensor of shape {tuple(found.shape)}"
    else:
        given = f"a {type(found).__name__}"
    source = "the forward_features of " if _is_timm(model) else ""
    raise TypeError(
        f"{source}{type(model).__name__} turns an image of shape {tuple(image.shape)} into "
        f"{given}, not into a feature map (N, C, H, W); {_SUPPORTED}"
    )


def _reached_parameters(backbone: nn.Module, image: Tensor) -> set[int]:
    """Return the ids of the parameters that the feature map depends on."""
    parameters = dict(backbone.named_parameters())
    # Stand-ins for the parameters, so that frozen ones count and no gradient is left behind.
    stand_ins = {
        name: parameter.detach().requires_grad_(parameter.is_floating_point())
        for name, parameter in parameters.items()
    }
    differentiable = {name: p for name, p in stand_ins.items() if p.requires_grad}
    with evaluation_mode(backbone), torch.enable_grad():
        feature_map = torch.func.functional_call(backbone, stand_ins, image)
        gradients = torch.autograd.grad(
            feature_map.sum(), list(differentiable.values()), allow_unused=True
        )
    return {
        id(parameters[name])
        for name, gradient in zip(differentiable, gradients, strict=True)
        if gradient is not None
    }


def _drop_unreached(module: nn.Module, reached: set[int]) -> None:
    """Replace the modules all of whose parameters are missing from `reached` by nn.Identity."""
    for name, child in module.named_children():
        parameters = [id(parameter) for parameter in child.parameters()]
        if parameters and reached.isdisjoint(parameters):
            setattr(module, name, nn.Identity())
        else:
            _drop_unreached(child, reached)


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}; expected an nn.Module, and {_SUPPORTED}"
        )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(
            f"model is wrapped in {type(model).__name__}; pass model.module and wrap the result"
        )
    if hasattr(model, "_orig_mod"):
        raise ValueError(
            "model is wrapped by torch.compile; pass model._orig_mod and compile the result"
        )
