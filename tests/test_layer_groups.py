"""Frozen layers, and learning rates that fall from the map to the photos."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from experiments.networks.model import ModelError, new_classifier
from experiments.training.batches import Part
from experiments.training.device import Compute
from experiments.training.layer_groups import freeze, layer_groups, no_weight_decay
from experiments.training.optimization import make_optimizer
from experiments.training.recipe import Recipe
from experiments.training.steps import Stepper
from lca_fused.classifier import attach_head

NETWORKS = {
    "timm's convnet": lambda: timm.create_model("test_resnet"),
    "timm's transformer": lambda: timm.create_model("test_vit", img_size=96),
    "torchvision's": torchvision.models.squeezenet1_1,
}


def classifier(network="timm's convnet"):
    torch.manual_seed(0)
    return new_classifier(NETWORKS[network](), "lca", 3, 96)


def step(model: nn.Module, recipe: Recipe) -> None:
    stepper = Stepper(
        model, nn.CrossEntropyLoss(), recipe, Compute(torch.device("cpu"), torch.float32), steps=4
    )
    stepper.start_training()
    images, labels = torch.randn(4, 3, 96, 96), torch.tensor([0, 1, 2, 0])
    part = Part(items=(0, 1, 2, 3), photos=4, step_photos=4, last=True, largest=4)
    stepper.backward(images, labels, part)
    stepper.update()


@pytest.mark.parametrize("network", NETWORKS)
def test_groups_are_in_the_order_of_the_forward_pass(network):
    model = classifier(network)
    depth = {id(p): at for at, group in enumerate(layer_groups(model.backbone)) for p in group}
    kinds = (nn.Conv2d, nn.Linear)
    found = [
        depth[id(module.weight)] for module in model.backbone.modules() if isinstance(module, kinds)
    ]
    assert found == sorted(found)
    assert found[0] == 0
    assert len(set(found)) > 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        *NETWORKS.values(),
        torchvision.models.convnext_tiny,  # "features" and a normalisation
        torchvision.models.densenet121,  # "features" and a ReLU
        torchvision.models.regnet_x_400mf,  # a stem and all stages
        torchvision.models.swin_t,
        lambda: timm.create_model("caformer_s18"),  # has no group_matcher
    ],
    ids=[*NETWORKS, "convnext", "densenet", "regnet", "swin", "caformer"],
)
def test_every_parameter_is_in_one_of_several_groups_and_the_stem_in_the_first(build):
    backbone = attach_head(build(), "gap", 3).backbone
    groups = layer_groups(backbone)
    assert len(groups) >= 4
    found = [id(parameter) for group in groups for parameter in group]
    assert sorted(found) == sorted(map(id, backbone.parameters()))
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    assert id(first.weight) in map(id, groups[0])


@pytest.mark.parametrize("network", NETWORKS)
def test_frozen_groups_stay_and_the_others_learn(network):
    model = classifier(network)
    groups = layer_groups(model.backbone)
    before = [[parameter.clone() for parameter in group] for group in groups]
    step(model, Recipe(freeze=2, backbone_lr=0.1, head_lr=0.1))
    for old, new in zip(before[:2], groups[:2], strict=True):
        assert all(map(torch.equal, old, new))
    for old, new in zip(before[2:], groups[2:], strict=True):
        assert not all(map(torch.equal, old, new))


@pytest.mark.parametrize("network", NETWORKS)
def test_rates_fall_from_the_map_to_the_photos(network):
    model = classifier(network)
    groups = layer_groups(model.backbone)
    optimizer = make_optimizer(model, Recipe(backbone_lr=0.01, head_lr=0.05, layer_decay=0.5))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert all(len({rates[id(parameter)] for parameter in group}) == 1 for group in groups)
    found = [rates[id(group[0])] for group in groups]
    assert found == pytest.approx([0.01 * 0.5**depth for depth in reversed(range(len(groups)))])
    head = [*model.pool.parameters(), *model.classifier.parameters()]
    assert {rates[id(parameter)] for parameter in head} == {0.05}


@pytest.mark.parametrize("frozen", [0, 1])
def test_every_trained_parameter_is_in_one_group_of_the_optimizer(frozen):
    model = classifier("timm's transformer")
    freeze(model.backbone, frozen)
    optimizer = make_optimizer(model, Recipe())
    found = [id(p) for group in optimizer.param_groups for p in group["params"]]
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(found) == sorted(trained)


def test_positions_of_a_transformer_have_no_decay():
    model = classifier("timm's transformer")
    undecayed = no_weight_decay(model.backbone)
    positions = model.backbone.model.pos_embed
    assert id(positions) in undecayed
    optimizer = make_optimizer(model, Recipe(weight_decay=0.1))
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert decays[id(positions)] == 0
    assert decays[id(model.backbone.model.blocks[0].mlp.fc1.weight)] == 0.1
    assert no_weight_decay(classifier("torchvision's").backbone) == set()


def test_all_groups_may_be_frozen_and_no_more():
    model = classifier()
    freeze(model.backbone, len(layer_groups(model.backbone)))
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    with pytest.raises(ModelError, match=r"recipe.freeze is 99, but the backbone has \d+ groups"):
        freeze(classifier().backbone, 99)
    with pytest.raises(ModelError, match=r"recipe.freeze is"):
        freeze(classifier().backbone, len(layer_groups(model.backbone)) + 1)


def test_frozen_batch_norm_keeps_its_statistics_where_the_others_learn():
    model = classifier()
    before = {name: buffer.clone() for name, buffer in model.backbone.named_buffers()}
    frozen = {id(p) for group in layer_groups(model.backbone)[:2] for p in group}
    step(model, Recipe(freeze=2, freeze_batch_norm=False))
    changed = {True: set(), False: set()}
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            old = before[f"{name}.running_mean"]
            changed[id(module.weight) in frozen].add(not torch.equal(module.running_mean, old))
    assert changed == {True: {False}, False: {True}}
