"""Backbones by name, and what each wants of a photo."""

from __future__ import annotations

import pytest
import timm
import torch

from lca_fused.backbones import SHORT_NAMES, BackboneError, find_backbone
from lca_fused.preprocessing import Preprocessing


def test_a_timm_backbone_has_timms_own_preprocessing_and_licence():
    found = find_backbone("timm:tf_efficientnet_lite2.in1k")
    config = timm.models.get_pretrained_cfg("tf_efficientnet_lite2.in1k")
    assert found.preprocessing == Preprocessing(
        image_size=config.input_size[-1],
        crop=config.crop_pct,
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
    )
    assert (found.source, found.architecture, found.weights) == (
        "timm",
        "tf_efficientnet_lite2",
        "in1k",
    )
    assert found.licence == config.license


def test_a_timm_backbone_that_saw_whole_photos_squashed_sees_them_so():
    assert not find_backbone("timm:convnext_base.fb_in22k_ft_in1k_384").preprocessing.keep_ratio


@pytest.mark.parametrize(
    ("name", "size", "crop", "interpolation"),
    [
        ("torchvision:resnet50.IMAGENET1K_V1", 224, 224 / 256, "bilinear"),
        ("torchvision:resnet50", 224, 224 / 232, "bilinear"),  # its best weights
        ("torchvision:swin_t", 224, 224 / 232, "bicubic"),
        ("torchvision:efficientnet_b3", 300, 300 / 320, "bicubic"),
    ],
)
def test_a_torchvision_backbone_has_the_preprocessing_of_its_weights(
    name, size, crop, interpolation
):
    found = find_backbone(name).preprocessing
    assert (found.image_size, found.crop, found.interpolation) == (size, crop, interpolation)


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_short_names_are_known(name):
    assert find_backbone(name).name == name


def test_weights_that_may_not_be_sold_say_so():
    assert "nc" in find_backbone("resnext101-32x8d-wsl").licence


def test_tensorflows_mobilenet_was_fed_minus_one_to_one():
    assert find_backbone("mobilenet-v2-tf").preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "expected timm:NAME, torchvision:NAME or one of embedded, mobilenet-v2"),
        ("timm:", "expected timm:NAME"),
        ("keras:resnet50", "expected timm:NAME"),
        ("timm:rsnet18", "has no 'rsnet18'; similar names are resnet18"),
        ("timm:resnet18.nothing", "nothing.*similar names are resnet18"),
        ("timm:hf-hub:owner/name", "has no"),  # a name is no address to fetch from
        ("torchvision:resnt50", "torchvision has no 'resnt50'; similar names are resnet50"),
        ("torchvision:resnet50.V3", "expected one of IMAGENET1K_V1, IMAGENET1K_V2"),
        ("lca_fused:other", "expected small_resnet"),
    ],
)
def test_an_unknown_name_is_refused_with_similar_ones(name, message):
    with pytest.raises(BackboneError, match=message):
        find_backbone(name)


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained", "pretrained_cfg"])
def test_arguments_that_would_have_files_read_are_refused(argument):
    with pytest.raises(BackboneError, match=argument):
        find_backbone("timm:resnet18", {argument: "x"})


def test_a_builder_that_does_not_take_the_arguments_is_named():
    with pytest.raises(BackboneError, match=r"timm:test_vit cannot be built with .*'colour'"):
        find_backbone("timm:test_vit", {"colour": 1}).build()


def test_a_transformer_is_built_for_another_image_size():
    found = find_backbone("timm:test_vit").at(96)
    assert found.preprocessing.image_size == 96
    assert found.build()(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)


def test_a_convnet_needs_no_building_for_another_image_size():
    found = find_backbone("timm:test_resnet").at(96, crop=1.0)
    assert found.preprocessing.resized_side == 96
    assert found.arguments == {}
    assert found.build()(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)
