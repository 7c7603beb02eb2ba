"""A backbone's layers in groups from its input to its map: which are frozen, which learn slowly."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn

from experiments.networks.model import ModelError
from experiments.training.recipe import Recipe
from lca_fused.feature_map import TimmMap

# A network with fewer children than these is one around others, as torchvision's "features" are.
_FEWEST_GROUPS = 4


def layer_groups(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of a backbone, a list for each group of its layers.

    The groups of a timm model are those of its `group_matcher`, which its own training uses; of
    other networks they are their children in the order of the forward pass, and the children of the
    largest of these while there are fewer than four.

    Args:
        backbone: network of feature maps, as `lca_fused.feature_map` returns it.
    """
    named = dict(backbone.named_parameters())
    groups = [[named[name] for name in names if name in named] for names in _names(backbone)]
    grouped = {id(parameter) for group in groups for parameter in group}
    rest = [parameter for parameter in named.values() if id(parameter) not in grouped]
    return [group for group in [*groups, rest] if group]


def freeze(backbone: nn.Module, groups: int) -> None:
    """Take the first groups of layers out of the training.

    Raises:
        ModelError: the backbone has no more groups than that.
    """
    layers = layer_groups(backbone)
    if groups > len(layers):
        raise ModelError(
            f"recipe.freeze is {groups}, but the backbone has {len(layers)} groups of layers; "
            f"expected 0 to {len(layers)} (all of them)"
        )
    for group in layers[:groups]:
        for parameter in group:
            parameter.requires_grad_(False)


def frozen_groups(backbone: nn.Module, recipe: Recipe) -> int:
    """Return how many groups of layers stay as they are, from the input on, as a recipe says."""
    groups = len(layer_groups(backbone))
    return (
        max(recipe.freeze, groups - groups // 3)
        if recipe.finetune == "last-stages"
        else recipe.freeze
    )


def keep_frozen_statistics(backbone: nn.Module) -> None:
    """Put the BatchNorm layers that are frozen in evaluation mode: they stay as they are, whole."""
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()


def no_weight_decay(backbone: nn.Module) -> set[int]:
    """Return ids of the parameters that a timm model wants without a decay, as positions are."""
    if not isinstance(backbone, TimmMap) or not hasattr(backbone.model, "no_weight_decay"):
        return set()
    names = backbone.model.no_weight_decay()
    return {id(p) for name, p in backbone.model.named_parameters() if name in names}


def _names(backbone: nn.Module) -> list[list[str]]:
    if isinstance(backbone, TimmMap) and hasattr(backbone.model, "group_matcher"):
        matcher = backbone.model.group_matcher(coarse=False)
        groups = group_parameters(backbone.model, matcher)
        return [[f"model.{name}" for name in groups[key]] for key in sorted(groups)]
    layers = [("", backbone)]
    while len(layers) < _FEWEST_GROUPS:
        largest = max(range(len(layers)), key=lambda at: _size(layers[at][1]))
        inner = _children(*layers[largest])
        if not inner:
            break
        layers[largest : largest + 1] = inner
    return [[f"{prefix}{name}" for name, _ in layer.named_parameters()] for prefix, layer in layers]


def _children(prefix: str, layer: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return what a layer is made of and can learn, each with what its parameters' names begin."""
    return [
        (f"{prefix}{name}.", child) for name, child in layer.named_children() if _size(child) > 0
    ]


def _size(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())
