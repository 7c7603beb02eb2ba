"""LCA on a pretrained classifier: torchvision's, timm's, or any backbone that returns a map."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lca_fused.evaluation import evaluation_mode
from lca_fused.integers import integer
from lca_fused.layer import LCA
from lca_fused.wrapping import (
    NAMING,
    check_hooks,
    move_hooks,
    same_numbers,
    unchanged_if_it_fails,
)

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
    "yields a map, and modules that return a feature map (N, C, H, W). Cut the model before its "
    "global pooling and pass that, or put lca_fused.LCA on the map yourself"
)


class LCAClassifier(nn.Module):
    """A backbone, Local-Concepts-Accumulation and a linear classifier; `attach_lca` makes one.

    arXiv 2001.03992, section 3.2. The methods are those of a timm model, but LCA is the pooling:
    no method takes it away. What else is asked of it the model inside answers, such as
    `pretrained_cfg`, `set_grad_checkpointing` or attributes of your own; `group_matcher` and
    `no_weight_decay` speak of the names that parameters have here.

    Args:
        backbone: (N, channels, height, width) images -> (N, C, H, W) feature maps.
        lca: the layer on top of it.
        num_classes: K; 0 for no classifier, which returns the features of LCA.
        dropout: probability, between LCA and the classifier.

    Shape:
        (N, channels, height, width) -> (N, K), or (N, D) without a classifier.

    Attributes:
        backbone: as given.
        lca: as given, with its D `out_features`.
        classifier: nn.Linear(D, K), on the device and in the dtype of `lca`; nn.Identity for K = 0.
        num_classes: K.
        num_features: C, channels of the feature map.
        head_hidden_size: D, what the classifier takes.

    Raises:
        ValueError: num_classes below 0 or dropout outside 0..1; at the call as `LCA` does.
        TypeError: num_classes is not an integer.
    """

    def __init__(
        self, backbone: nn.Module, lca: LCA, num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check_head(num_classes, dropout)
        self.backbone = backbone
        self.lca = lca
        self.dropout = nn.Dropout(dropout)
        self.reset_classifier(num_classes)

    def __getattr__(self, name: str) -> Any:
        """Ask the model inside for what this one has not."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            backbone = vars(self).get("_modules", {}).get("backbone")
            inside, prefix = _inside(backbone)
            if name.startswith("_") or not hasattr(inside, name):
                raise
        value = getattr(inside, name)
        return partial(NAMING[name], value, prefix) if name in NAMING else value

    @property
    def num_features(self) -> int:
        """C, channels of the feature map."""
        return self.lca.in_features

    @property
    def head_hidden_size(self) -> int:
        """D, what the classifier takes."""
        return self.lca.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of a batch of images."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the feature map (N, C, H, W) that LCA pools."""
        return self.backbone(images)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits (N, K) of a feature map, or what the classifier sees of it (N, D)."""
        x = self.dropout(self.lca(x))
        return x if pre_logits else self.classifier(x)

    def get_classifier(self) -> nn.Module:
        """Return the linear classifier."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear classifier by a new one; backbone and LCA stay.

        Args:
            num_classes: K; 0 for no classifier.
            global_pool: there for timm's signature, must be None.

        Raises:
            ValueError: num_classes is below 0, or a global_pool is asked for.
            TypeError: num_classes is not an integer.
        """
        if global_pool is not None:
            raise ValueError(
                f"global_pool is {global_pool!r}, but LCA is the pooling of this model; leave it "
                "out to replace the classifier alone, or take `.backbone` to pool another way"
            )
        num_classes = _check_head(num_classes, 0.0)
        weight = self.lca.weight
        self.classifier: nn.Module = (
            nn.Linear(self.lca.out_features, num_classes, device=weight.device, dtype=weight.dtype)
            if num_classes
            else nn.Identity()
        ).train(self.training)
        self.num_classes = num_classes


def attach_lca(
    model: nn.Module,
    num_classes: int,
    *,
    out_features: int | None = None,
    kernel_sizes: Iterable[tuple[int, int]] | None = None,
    backend: str = "auto",
    bias: bool = True,
    dropout: float = 0.0,
) -> LCAClassifier:
    """Put LCA and a new linear classifier on the backbone of a classifier.

    arXiv 2001.03992, section 3.2: LCA takes the place of global pooling. What follows the pooling
    in `model` is left out, as LCA has a fully connected layer of its own; a normalisation between
    the pooling and the rest (ConvNeXt's) is kept and acts on the map. The map is found with one
    small image in evaluation mode, which leaves buffers, modes and random numbers as they are. A
    call that fails leaves all of `model` as it was.

    Hooks of `model` itself act on the result, and its attributes are found there. Hooks of layers
    go on with the layers.

    The parameters are those of `model`, not copies, under their own names: "backbone.layer4..." of
    a torchvision model, "backbone.model.layer4..." of a timm model. A timm model gives its head
    away; go on with the result.

    Args:
        model: a torchvision classifier, a timm classifier whose `forward_features` yields a map,
            or any module that returns a feature map (N, C, H, W).
        num_classes: K; 0 for no classifier.
        out_features: D of LCA; None means D = C, the channels of the map.
        kernel_sizes: as `LCA` takes them.
        backend: as `LCA` takes it.
        bias: whether LCA's linear layer has one.
        dropout: probability, between LCA and the classifier.

    Returns:
        The classifier, on the device and in the dtype of `model`.

    Raises:
        ValueError: the model has an LCA layer already, is wrapped (torch.compile, data parallel),
            fails on the images it is tried with or maps them to 1x1; a layer that is left out has
            hooks; arguments as `LCA` and
            `LCAClassifier` refuse them.
        TypeError: the model is not an nn.Module or does not yield a map (N, C, H, W).
    """
    _check_model(model)
    num_classes = _check_head(num_classes, dropout)
    modules = set(model.modules())
    with unchanged_if_it_fails(model):
        backbone = _backbone(model)
        with same_numbers(model):
            image, feature_map = _probe(model, backbone)
            if backbone is not model:
                check_hooks(model, backbone, image)
        lca = LCA(
            feature_map.shape[1],
            out_features,
            bias,
            kernel_sizes=kernel_sizes,
            backend=backend,
            device=feature_map.device,
            dtype=image.dtype,
        )
        classifier = LCAClassifier(backbone, lca, num_classes, dropout)
        if isinstance(backbone, _TimmBackbone):
            with same_numbers(model):
                backbone.drop_head(image)
        for module in set(classifier.modules()) - modules:
            module.training = model.training
        if backbone is not model:
            move_hooks(model, backbone, classifier)
    return classifier


class _TimmBackbone(nn.Module):
    """A timm model's forward_features, and the normalisation of its head, as (N, C, H, W).

    The head itself is never called, so resetting it has no effect on the map.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        norm = getattr(getattr(model, "head", None), "norm", None)
        acts_on_map = isinstance(norm, nn.Module) and all(
            parameter.numel() == model.num_features for parameter in norm.parameters()
        )
        self.norm: Any = norm if acts_on_map else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.model.forward_features(images))
        return x.permute(0, 3, 1, 2) if self.channels_last else x

    def drop_head(self, image: Tensor) -> None:
        """Remove the modules that have no share in the map, lest they wait for gradients."""
        self.model.reset_classifier(0)
        if not isinstance(self.norm, nn.Identity):
            self.model.head.norm = nn.Identity()
        _drop_unreached(self, _reached_parameters(self, image))


def _inside(backbone: nn.Module | None) -> tuple[nn.Module | None, str]:
    """Return the model that users know, and what its parameters' names begin with."""
    if isinstance(backbone, _TimmBackbone):
        return backbone.model, "backbone.model."
    return backbone, "backbone."


def _backbone(model: nn.Module) -> nn.Module:
    """Return a module that makes the feature map of `model` from images, if anything does."""
    family = _torchvision_family(model)
    if family is not None:
        return _torchvision_backbone(model, family)
    return _TimmBackbone(model) if _is_timm(model) else model


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


def _probe(model: nn.Module, backbone: nn.Module) -> tuple[Tensor, Tensor]:
    """Return an image that `backbone` takes, and its feature map (1, C, H, W)."""
    failure: Exception | None = None
    feature_map = None
    with evaluation_mode(model), torch.no_grad():
        for image in _images(model):
            try:
                feature_map = backbone(image)
            except Exception as error:  # whatever the model raises, another size may do
                failure = error
                continue
            if _check_map(model, image, feature_map):
                return image, feature_map
    if feature_map is None:
        raise ValueError(
            f"{type(model).__name__} fails on an image of shape {tuple(image.shape)}: {failure}; "
            f"{_SUPPORTED}"
        ) from failure
    raise ValueError(
        f"{type(model).__name__} maps an image of shape {tuple(image.shape)} to 1x1, which has no "
        f"rectangles; {_SUPPORTED}"
    )


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


def _check_map(model: nn.Module, image: Tensor, feature_map: object) -> bool:
    """Return whether a map has more than one position; raise TypeError if it is no map."""
    if isinstance(feature_map, Tensor) and feature_map.dim() == 4:
        return feature_map.shape[2:] != (1, 1)
    if isinstance(feature_map, Tensor):
        given = f"a tensor of shape {tuple(feature_map.shape)}"
    else:
        given = f"a {type(feature_map).__name__}"
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
    if any(isinstance(module, LCA | LCAClassifier) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has an LCA layer already; to change the classes of an "
            "LCAClassifier call its reset_classifier"
        )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(
            f"model is wrapped in {type(model).__name__}; pass model.module and wrap the result"
        )
    if hasattr(model, "_orig_mod"):
        raise ValueError(
            "model is wrapped by torch.compile; pass model._orig_mod and compile the result"
        )


def _check_head(num_classes: int, dropout: float) -> int:
    num_classes = integer("num_classes", num_classes)
    if num_classes < 0:
        raise ValueError(f"num_classes is {num_classes}; expected at least 0")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is {dropout}; expected 0 to 1")
    return num_classes
