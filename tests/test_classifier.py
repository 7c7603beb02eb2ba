"""attach_lca: torchvision, timm and plain backbones, with weights, modes and statistics kept."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
import torchvision.models as tv
from timm.models.swin_transformer import SwinTransformer as TimmSwin
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock, Bottleneck

from lca_fused import LCA, Classifier, attach_head, attach_lca
from reference.lca import lca_reference


def resnet(**arguments: object) -> nn.Module:
    return tv.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10, **arguments)


def small_classifier(make: Callable[[], nn.Module], features: int) -> nn.Module:
    """AlexNet or VGG with one linear layer for its classifier of a hundred million weights."""
    with torch.device("meta"):
        model = make()
        model.classifier = nn.Linear(features, 10)
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


TORCHVISION: dict[str, Callable[[], nn.Module]] = {
    "resnet": resnet,
    "resnext": lambda: tv.ResNet(Bottleneck, [1, 1, 1, 1], 10, groups=32, width_per_group=4),
    "wide_resnet": lambda: tv.ResNet(Bottleneck, [1, 1, 1, 1], 10, width_per_group=128),
    "alexnet": lambda: small_classifier(tv.alexnet, 256 * 6 * 6),
    "convnext": lambda: tv.ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)]),
    "densenet": lambda: tv.DenseNet(8, (2, 2, 2, 2), 16, num_classes=10),
    "efficientnet": tv.efficientnet_b0,
    "mnasnet": tv.mnasnet0_5,
    "mobilenet_v2": tv.mobilenet_v2,
    "mobilenet_v3": tv.mobilenet_v3_small,
    "regnet": tv.regnet_y_400mf,
    "shufflenet": tv.shufflenet_v2_x0_5,
    "squeezenet": tv.squeezenet1_1,
    "swin": lambda: tv.SwinTransformer([4, 4], 16, [1, 1], [2, 4], [4, 4]),
    "vgg": lambda: small_classifier(tv.vgg11, 512 * 7 * 7),
}

# timm's kinds of map and head: plain, a norm between pooling and classifier, (N, H, W, C) maps of
# a fixed image size, both of these, layers after the pooling, a pooling that cannot be taken away.
TIMM: dict[str, Callable[[], nn.Module]] = {
    name: partial(timm.create_model, name, num_classes=10)
    for name in (
        "test_resnet",
        "test_efficientnet",
        "test_convnext",
        "test_mambaout",
        "mobilenetv3_small_050",
        "efficientvit_b0",
    )
} | {
    "swin": lambda: TimmSwin(
        img_size=64, embed_dim=16, depths=(1, 1), num_heads=(2, 4), window_size=4, num_classes=10
    )
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def images(n: int = 2, side: int = 64, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(1))


def plain_backbone() -> nn.Sequential:
    """A module that returns a map of stride 8."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 2, 2), nn.ReLU()
    )


def classify_as_torchvision(model: nn.Module, feature_map: Tensor) -> Tensor:
    """Go on from the map as the forward pass of `model` does."""
    if isinstance(model, tv.SqueezeNet):
        return model.classifier(feature_map).flatten(1)
    if isinstance(model, tv.AlexNet | tv.VGG):
        feature_map = model.avgpool(feature_map)
    else:
        feature_map = feature_map.mean((2, 3))
    names = ("fc", "classifier", "head")
    head = next(getattr(model, name) for name in names if hasattr(model, name))
    return head(feature_map.flatten(1))


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(TORCHVISION) - {"convnext"}))
def test_the_map_of_a_torchvision_model_is_what_it_pools_itself(family):
    model = TORCHVISION[family]().eval()
    x = images(1, 96)
    with torch.no_grad():
        expected = model(x)
        feature_map = attach_lca(model, 7).forward_features(x)
        assert feature_map.shape[2] > 1
        torch.testing.assert_close(classify_as_torchvision(model, feature_map), expected)


def test_the_norm_in_convnexts_classifier_acts_on_the_map():
    model = TORCHVISION["convnext"]().eval()
    norm = model.classifier[0]
    nn.init.normal_(norm.weight)
    attached = attach_lca(model, 7)
    assert attached.backbone.norm is norm
    torch.testing.assert_close(attached.forward_features(images()), norm(model.features(images())))


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_the_map_of_a_timm_model_is_its_forward_features_with_channels_first(name):
    model = TIMM[name]().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    side = model.default_cfg["input_size"][-1] if hasattr(model, "default_cfg") else 64
    x = images(1, side)
    with torch.no_grad():
        expected = model.forward_features(x)
        if name in ("test_convnext", "test_mambaout"):
            expected = model.head.norm(expected)
        if name in ("test_mambaout", "swin"):
            expected = expected.permute(0, 3, 1, 2)
        feature_map = attach_lca(model, 7).forward_features(x)
    assert feature_map.shape[:2] == (1, model.num_features)
    torch.testing.assert_close(feature_map, expected)


def test_timms_own_unpooled_output_is_the_map():
    unpooled = TIMM["test_convnext"]().eval()
    attached = attach_lca(copy.deepcopy(unpooled), 7)
    unpooled.reset_classifier(0, "")
    torch.testing.assert_close(attached.forward_features(images()), unpooled(images()))


@pytest.mark.slow
@pytest.mark.parametrize("make", [*TORCHVISION.values(), *TIMM.values()], ids=[*TORCHVISION, *TIMM])
def test_every_parameter_is_the_original_and_gets_a_gradient(make):
    model = make()
    originals = {id(parameter) for parameter in model.parameters()}
    attached = attach_lca(model, 7)
    assert {id(parameter) for parameter in attached.backbone.parameters()} <= originals
    assert all(parameter.grad is None for parameter in attached.parameters())
    logits = attached(images(side=96 if make is TORCHVISION["alexnet"] else 64))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert [name for name, p in attached.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("make", "gone"),
    [
        (TIMM["test_resnet"], {"fc"}),
        (TIMM["test_convnext"], {"head.fc", "head.norm"}),  # the norm is kept as backbone.norm
        (TIMM["mobilenetv3_small_050"], {"conv_head", "classifier"}),
        (TIMM["efficientvit_b0"], {"head"}),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_timm_models_head_leaves_no_parameters_behind(make, gone, frozen):
    model = make().requires_grad_(not frozen)
    expected = {
        f"backbone.model.{name}"
        for name, _ in model.named_parameters()
        if not any(name.startswith(f"{head}.") for head in gone)
    }
    attached = attach_lca(model, 7)
    names = {name for name, _ in attached.named_parameters()}
    own = {"lca.weight", "lca.bias", "classifier.weight", "classifier.bias"}
    kept_norm = {"backbone.norm.weight", "backbone.norm.bias"} if "head.norm" in gone else set()
    assert names == expected | own | kept_norm


def test_logits_are_the_papers_layer_and_a_linear_layer_on_the_map():
    attached = attach_lca(resnet(), 7, out_features=20, kernel_sizes=[(1, 2), (2, 2)]).eval()
    feature_map = attached.backbone(images(side=96))
    features = lca_reference(
        feature_map, attached.pool.weight, attached.pool.bias, [(1, 2), (2, 2)]
    )
    torch.testing.assert_close(attached.forward_head(feature_map, pre_logits=True), features)
    torch.testing.assert_close(attached.forward_head(feature_map), attached.classifier(features))
    torch.testing.assert_close(attached(images(side=96)), attached.classifier(features))


def test_arguments_reach_the_layers():
    attached = attach_lca(
        plain_backbone(),
        7,
        out_features=20,
        kernel_sizes=[(2, 2)],
        backend="eager",
        bias=False,
        dropout=0.25,
    )
    assert repr(attached.pool) == repr(LCA(8, 20, False, kernel_sizes=[(2, 2)], backend="eager"))
    assert repr(attached.classifier) == repr(nn.Linear(20, 7))
    assert attached.dropout.p == 0.25
    assert attach_lca(plain_backbone(), 7).pool.out_features == 8


def test_new_layers_are_drawn_as_lca_and_linear_would_be():
    backbone = plain_backbone()
    torch.manual_seed(5)
    attached = attach_lca(backbone, 7)
    torch.manual_seed(5)
    lca, classifier = LCA(8), nn.Linear(8, 7)
    assert torch.equal(attached.pool.weight, lca.weight)
    assert torch.equal(attached.pool.bias, lca.bias)
    assert torch.equal(attached.classifier.weight, classifier.weight)
    assert torch.equal(attached.classifier.bias, classifier.bias)


def test_dropout_acts_between_lca_and_the_classifier_in_training_only():
    attached = attach_lca(plain_backbone(), 7, dropout=0.5)
    feature_map = torch.rand(2, 8, 4, 4)
    nn.init.ones_(attached.pool.bias)
    dropped = attached.forward_head(feature_map, pre_logits=True) == 0
    assert dropped.any()
    assert not dropped.all()
    attached.eval()
    assert torch.equal(
        attached.forward_head(feature_map, pre_logits=True), attached.pool(feature_map)
    )


@pytest.mark.parametrize("make", [resnet, TIMM["test_resnet"], plain_backbone])
def test_statistics_and_training_modes_stay_as_they_are(make):
    model = make()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].eval()
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert any("running_mean" in name for name in buffers)
    attached = attach_lca(model, 7)
    assert not norms[0].training
    assert all(module.training == mode for module, mode in modes.items())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert attached.training
    assert attached.pool.training


@pytest.mark.parametrize("make", [resnet, TIMM["test_convnext"], plain_backbone])
def test_a_model_in_evaluation_mode_stays_there(make):
    attached = attach_lca(make().eval(), 7, dropout=0.5)
    assert not any(module.training for module in attached.modules())


def test_names_are_those_of_the_torchvision_model():
    model = resnet()
    expected = {f"backbone.{key}" for key in model.state_dict() if not key.startswith("fc.")}
    expected |= {"lca.weight", "lca.bias", "classifier.weight", "classifier.bias"}
    attached = attach_lca(model, 7)
    assert set(attached.state_dict()) == expected
    assert "backbone.layer4.0.conv1.weight" in expected


def test_a_module_that_returns_a_map_is_the_backbone_itself():
    backbone = plain_backbone()
    attached = attach_lca(backbone, 7)
    assert attached.backbone is backbone
    assert attached(images()).shape == (2, 7)


def test_a_backbone_without_parameters_will_do():
    attached = attach_lca(nn.AvgPool2d(8), 7)
    assert attached.pool.in_features == 3
    assert attached(images()).shape == (2, 7)


@pytest.mark.parametrize("make", [resnet, TIMM["test_convnext"]])
def test_reset_classifier_replaces_the_linear_classifier_alone(make):
    attached = attach_lca(make(), 7, out_features=20)
    before = {name: p for name, p in attached.named_parameters() if "classifier" not in name}
    features = attached.eval().forward_head(attached.forward_features(images()), pre_logits=True)
    attached.description = "of 7 classes"
    attached.reset_classifier(4)
    assert attached.num_classes == 4
    assert attached.description is None
    assert not attached.classifier.training
    assert attached.get_classifier() is attached.classifier
    assert attached.classifier.weight.shape == (4, 20)
    after = {name: p for name, p in attached.named_parameters() if "classifier" not in name}
    assert before.keys() == after.keys()
    assert all(after[name] is parameter for name, parameter in before.items())
    torch.testing.assert_close(attached(images()), attached.classifier(features))


def test_without_classes_there_is_no_classifier():
    attached = attach_lca(plain_backbone(), 7).eval()
    features = attached.forward_head(attached.forward_features(images()), pre_logits=True)
    attached.reset_classifier(0)
    assert torch.equal(attached(images()), features)
    assert attach_lca(plain_backbone(), 0)(images()).shape == (2, 8)


@pytest.mark.parametrize("global_pool", ["avg", ""])
def test_reset_classifier_does_not_replace_lca_by_another_pooling(global_pool):
    attached = attach_lca(plain_backbone(), 7)
    with pytest.raises(ValueError, match="but the pooling of this model is LCA; leave it out"):
        attached.reset_classifier(4, global_pool)
    assert attached.num_classes == 7


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "mobilenetv3_small_050", "swin"])
def test_resetting_the_timm_model_inside_has_no_effect(name):
    attached = attach_lca(TIMM[name](), 7).eval()
    expected = attached(images())
    attached.backbone.model.reset_classifier(4, "avg")
    assert torch.equal(attached(images()), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"backend": "fast"}, ValueError, "backend is 'fast'; expected one of"),
        ({"out_features": 0}, ValueError, "out_features is 0; both must be at least 1"),
        ({"kernel_sizes": [(0, 1)]}, ValueError, "each side must be at least 1"),
        ({"dropout": 1.5}, ValueError, r"dropout is 1\.5; expected 0 to 1"),
        ({"num_classes": -1}, ValueError, "num_classes is -1; expected at least 0"),
        ({"num_classes": 2.0}, TypeError, r"num_classes is 2\.0; expected an integer"),
        ({"num_classes": True}, TypeError, "num_classes is True; expected an integer"),
    ],
)
def test_arguments_out_of_range_are_refused_and_leave_the_model_whole(arguments, error, message):
    model = TIMM["test_convnext"]()
    with pytest.raises(error, match=message):
        attach_lca(model, **{"num_classes": 7, **arguments})
    assert model.num_classes == 10
    assert model(images()).shape == (2, 10)


@pytest.mark.parametrize("num_classes", [-1, 2.0])
def test_reset_classifier_refuses_what_is_no_number_of_classes(num_classes):
    with pytest.raises((ValueError, TypeError), match="num_classes is"):
        attach_lca(plain_backbone(), 7).reset_classifier(num_classes)


def test_a_model_with_lca_is_refused():
    attached = attach_lca(plain_backbone(), 7)
    for model in (attached, nn.Sequential(attached), nn.Sequential(nn.Identity(), LCA(3))):
        with pytest.raises(ValueError, match=r"has an LCA layer already; .* reset_classifier"):
            attach_lca(model, 7)


class OwnForward(tv.ResNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(1))


class SameForward(tv.ResNet):
    pass


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), "Sequential .* shape \\(1, 4\\)"),
        (lambda: OwnForward(BasicBlock, [1, 1, 1, 1]), r"OwnForward .* shape \(1, 1000\)"),
        (
            lambda: tv.GoogLeNet(num_classes=4, aux_logits=False, init_weights=False),
            r"GoogLeNet .* shape \(1, 4\)",
        ),
        (
            lambda: timm.create_model("test_resnet", features_only=True),
            "FeatureListNet .* a list",
        ),
    ],
)
def test_models_without_a_map_are_refused_with_what_to_do(make, given):
    message = f"{given}, not into a feature map .* supported are torchvision's .* put lca_fused.LCA"
    with pytest.raises(TypeError, match=message):
        attach_lca(make(), 7)


def test_a_subclass_that_keeps_the_forward_pass_is_taken_as_its_family():
    model = SameForward(BasicBlock, [1, 1, 1, 1])
    model.auxiliary = nn.Linear(3, 3)  # no part of the forward pass
    attached = attach_lca(model, 7)
    assert "backbone.layer4.0.conv1.weight" in attached.state_dict()
    assert attached(images()).shape == (2, 7)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("resnet18", TypeError, "model is a str; expected an nn.Module"),
        (resnet, TypeError, "model is a function; expected an nn.Module"),
        (
            nn.DataParallel(plain_backbone()),
            ValueError,
            r"wrapped in DataParallel; pass model\.mod",
        ),
        (torch.compile(plain_backbone()), ValueError, r"torch\.compile; pass model\._orig_mod"),
        (nn.Conv2d(3, 4, 224), ValueError, r"Conv2d maps .* \(1, 3, 224, 224\) to 1x1, which has"),
        (nn.AdaptiveAvgPool2d(1), ValueError, "AdaptiveAvgPool2d maps an image .* to 1x1"),
        (
            nn.Linear(3, 4),
            ValueError,
            r"Linear fails on an image of shape \(1, 3, 128, 128\): .*mat1",
        ),
    ],
)
def test_what_is_no_backbone_is_refused(model, error, message):
    with pytest.raises(error, match=message):
        attach_lca(model, 7)


@pytest.mark.parametrize("channels", [1, 5])
def test_images_need_not_have_three_channels(channels):
    model = resnet()
    model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    for attached in (
        attach_lca(model, 7),
        attach_lca(timm.create_model("test_resnet", in_chans=channels), 7),
    ):
        assert attached(images(channels=channels)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [resnet, TIMM["test_resnet"], TIMM["test_convnext"]])
def test_new_layers_follow_the_models_dtype(make, dtype):
    attached = attach_lca(make().to(dtype).eval(), 7)
    assert {parameter.dtype for parameter in attached.parameters()} == {dtype}
    logits = attached(images().to(dtype))
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    attached.reset_classifier(3)
    assert attached.classifier.weight.dtype == dtype


def test_new_layers_follow_the_models_device():
    with torch.device("meta"):
        model = resnet()
    attached = attach_lca(model, 7)
    assert {parameter.device.type for parameter in attached.parameters()} == {"meta"}


def test_channels_last_changes_nothing():
    attached = attach_lca(resnet(), 7).eval()
    expected = attached(images())
    attached.to(memory_format=torch.channels_last)
    x = images().contiguous(memory_format=torch.channels_last)
    assert attached.forward_features(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(attached(x), expected, rtol=1e-4, atol=1e-5)


def test_autocast_gives_16_bit_logits_near_the_float32_ones():
    attached = attach_lca(resnet(), 7).eval()
    expected = attached(images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = attached(images())
    assert logits.dtype == torch.bfloat16
    assert (logits - expected).norm() <= 0.03 * expected.norm()


@pytest.mark.parametrize("make", [resnet, TIMM["test_convnext"], plain_backbone])
def test_copies_are_independent(make):
    attached = attach_lca(make(), 7).eval()
    expected = attached(images())
    copied = copy.deepcopy(attached)
    with torch.no_grad():
        for parameter in attached.parameters():
            parameter.zero_()
    assert torch.equal(copied(images()), expected)


@pytest.mark.slow
@pytest.mark.parametrize("make", [resnet, TIMM["test_convnext"], TIMM["mobilenetv3_small_050"]])
def test_state_survives_a_file_read_with_weights_only(make):
    attached, other = (attach_lca(make(), 7).eval() for _ in range(2))
    file = io.BytesIO()
    torch.save(attached.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(images()), attached(images()))


def test_a_classifier_can_be_made_of_its_parts():
    backbone, lca = plain_backbone(), LCA(8, 20)
    model = Classifier(backbone, lca, 7, dropout=0.1)
    assert model.backbone is backbone
    assert model.pool is lca
    assert model(images()).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "make"), [("aot_eager", resnet), ("inductor", tv.resnet18)])
def test_compiles_whole_forward_and_backward(backend, make):
    torch.compiler.reset()
    attached = attach_lca(make(), 7)
    compiled = torch.compile(copy.deepcopy(attached), fullgraph=True, backend=backend)
    outputs = []
    for model in (attached, compiled):
        logits = model(images(side=64))
        logits.square().sum().backward()
        outputs.append((logits.detach(), model.pool.weight.grad, model.backbone.conv1.weight.grad))
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)
    torch.compiler.reset()


def test_the_head_is_called_lca_where_it_is_one_and_can_be_replaced():
    attached = attach_lca(plain_backbone(), 7)
    assert attached.lca is attached.pool
    assert not hasattr(attach_head(plain_backbone(), "gap", 7), "lca")
    attached.pool = LCA(8, kernel_sizes=[(2, 2)])
    assert attached.lca is attached.pool
    assert {name for name, _ in attached.named_children()} == {
        "backbone",
        "lca",
        "dropout",
        "classifier",
    }


def test_an_unknown_head_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="head is 'max'; expected one of gap, gap-fc, gem"):
        attach_head(plain_backbone(), "max", 7)
    with pytest.raises(TypeError, match="without out_features"):
        attach_head(plain_backbone(), lambda _: nn.Identity(), 7)
