"""What a wrapped model knew: hooks, attributes, timm's interface; and itself, should it fail."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from lca_fused import attach_lca


def torchvision_model() -> nn.Module:
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def timm_model(name: str = "test_resnet") -> nn.Module:
    return timm.create_model(name, num_classes=10)


MODELS = {"torchvision": torchvision_model, "timm": timm_model}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_timm_resolves_the_data_configuration_of_the_model_inside():
    model = timm.create_model("tf_mobilenetv3_small_100")
    expected = resolve_model_data_config(model)
    assert expected["mean"] == (0.5, 0.5, 0.5)
    attached = attach_lca(model, 5)
    assert resolve_model_data_config(attached) == expected
    assert attached.default_cfg is model.default_cfg


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("coarse", [False, True])
def test_layer_wise_decay_sees_the_layers_that_timm_sees(name, coarse):
    from timm.models import group_parameters

    model = timm_model(name)
    expected = group_parameters(model, model.group_matcher(coarse), reverse=True)
    attached = attach_lca(model, 5)
    actual = group_parameters(attached, attached.group_matcher(coarse), reverse=True)
    for parameter, layer in actual.items():
        inside = parameter.removeprefix("backbone.model.")
        if inside != parameter:
            assert layer == expected[inside]
    assert actual["lca.weight"] == actual["classifier.weight"] == max(actual.values())
    scales = {group["lr_scale"] for group in param_groups_layer_decay(attached, layer_decay=0.5)}
    assert len(scales) > 2


def test_parameters_without_decay_have_their_names_here():
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=10)
    inside = model.no_weight_decay()
    assert inside
    attached = attach_lca(model, 5)
    assert attached.no_weight_decay() == {f"backbone.model.{name}" for name in inside}
    assert attached.no_weight_decay() <= {name for name, _ in attached.named_parameters()}


def test_gradient_checkpointing_reaches_the_layers():
    attached = attach_lca(timm_model(), 5)
    expected = attached.eval()(images()).detach()
    attached.set_grad_checkpointing()
    assert attached.backbone.model.grad_checkpointing
    torch.testing.assert_close(attached(images()), expected)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_attributes_of_the_users_own_are_found(make):
    model = make()
    model.names = ["apple", "lime"]
    model.register_buffer("prior", torch.ones(2))
    attached = attach_lca(model, 5)
    for one in (attached, copy.deepcopy(attached)):
        assert one.names == ["apple", "lime"]
        assert torch.equal(one.prior, torch.ones(2))
        assert (one.num_features, one.head_hidden_size) == (one.pool.in_features,) * 2
        assert not hasattr(one, "group_matchers")
        with pytest.raises(AttributeError, match="Classifier"):
            _ = one.no_such_thing


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_whole_classifier_survives_a_file_and_compiles(make):
    attached = attach_lca(make(), 5).eval()
    file = io.BytesIO()
    torch.save(attached, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    loaded.load_state_dict(attached.state_dict())
    assert torch.equal(loaded(images()), attached(images()))
    torch.compiler.reset()
    compiled = torch.compile(attached, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images()), attached(images()))
    torch.compiler.reset()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_hooks_of_the_model_act_on_the_result_until_they_are_removed(make):
    model = make().eval()
    plain = attach_lca(copy.deepcopy(model), 5)
    seen: list[Any] = []
    handles = [
        model.register_forward_pre_hook(lambda _, args: (2 * args[0],)),
        model.register_forward_pre_hook(
            lambda _, _args, kwargs: seen.append(("pre", kwargs)), with_kwargs=True
        ),
        model.register_forward_hook(lambda _, _args, output: output + 1),
        model.register_forward_hook(
            lambda _, _args, kwargs, _output: seen.append(("post", kwargs)),
            with_kwargs=True,
            always_call=True,
        ),
        model.register_full_backward_hook(lambda *_: seen.append(("backward", {}))),
    ]
    attached = attach_lca(model, 5)
    attached.pool, attached.classifier = plain.pool, plain.classifier
    logits = attached(images())
    torch.testing.assert_close(logits, plain(2 * images()) + 1)
    logits.sum().backward()
    assert seen == [("pre", {}), ("post", {}), ("backward", {})]
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(attached(images()), plain(images()))
    assert len(seen) == 3


def test_hooks_of_layers_go_on_with_the_layers():
    model = torchvision_model().eval()
    shapes: list[tuple[int, ...]] = []
    model.layer4.register_forward_hook(lambda _, _args, output: shapes.append(output.shape))
    attached = attach_lca(model, 5)
    shapes.clear()
    attached(images())
    assert shapes == [(2, 512, 2, 2)]


@pytest.mark.parametrize(
    ("make", "layer"),
    [(torchvision_model, "avgpool"), (torchvision_model, "fc"), (timm_model, "global_pool")],
)
def test_hooks_of_layers_that_are_left_out_are_refused(make, layer):
    model = make().eval()
    handle = model.get_submodule(layer).register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=rf"'{layer}' of ResNet has hooks and is left out"):
        attach_lca(model, 5)
    assert model(images()).shape == (2, 10)
    handle.remove()
    assert attach_lca(model, 5)(images()).shape == (2, 5)


def test_hooks_of_a_state_act_on_the_names_that_they_know():
    model = torchvision_model()
    prefixes: list[str] = []
    model.register_state_dict_post_hook(lambda _, _state, prefix, _meta: prefixes.append(prefix))
    attach_lca(model, 5).state_dict()
    assert prefixes == ["backbone."]


class FailsToReset(nn.Module):
    """A model with timm's methods that fails once it has changed itself and drawn numbers."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, 8)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.fc = nn.Linear(4, 10)

    def forward_features(self, x: Tensor) -> Tensor:
        self.calls += 1
        torch.rand(3)
        return self.norm(self.conv(x))

    def forward_head(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def reset_classifier(self, num_classes: int) -> None:
        self.fc, self.num_classes = nn.Identity(), num_classes
        raise RuntimeError("out of order")


def test_a_failure_leaves_the_model_and_the_random_numbers_as_they_were():
    model = FailsToReset().train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(model.state_dict())
    modules, modes = list(model.modules()), [module.training for module in model.modules()]
    hooks, numbers = dict(model._forward_hooks), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="out of order"):
        attach_lca(model, 5)
    assert list(model.modules()) == modules
    assert [module.training for module in model.modules()] == modes
    assert dict(model._forward_hooks) == hooks
    assert not hasattr(model, "num_classes")
    assert not model.conv.weight.requires_grad
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert torch.equal(torch.get_rng_state(), numbers)
