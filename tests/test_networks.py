"""Pretrained networks by name, with the weights of a file or of their source."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from experiments.networks.backbones import load_network, weights_source
from experiments.networks.model import ModelError, new_classifier
from experiments.networks.weights import WeightsError, WeightsNotGivenError
from experiments.training.recipe import Recipe


def same(network: nn.Module, state: dict[str, torch.Tensor], but: str = "fc") -> bool:
    found = network.state_dict()
    return all(torch.equal(found[name], value) for name, value in state.items() if but not in name)


@pytest.fixture
def resnet():
    torch.manual_seed(1)
    return timm.create_model("test_resnet", num_classes=7).state_dict()


def test_a_timm_networks_weights_are_read_from_a_file(tmp_path, resnet):
    wrapped = {f"module.{name}": value for name, value in resnet.items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "net.pth")
    assert same(load_network("timm:test_resnet", tmp_path / "net.pth"), resnet)


def test_weights_are_read_from_safetensors(tmp_path, resnet):
    save_file(resnet, tmp_path / "net.safetensors")
    assert same(load_network("timm:test_resnet", tmp_path / "net.safetensors"), resnet)


def test_a_transformers_positions_are_scaled_to_another_image_size(tmp_path):
    torch.manual_seed(1)
    state = timm.create_model("test_vit").state_dict()
    torch.save(state, tmp_path / "net.pth")
    network = load_network("timm:test_vit", tmp_path / "net.pth", image_size=96)
    assert network.pos_embed.shape == (1, 1 + 36, 64)
    assert same(network, {k: v for k, v in state.items() if k != "pos_embed"})
    assert network(torch.randn(1, 3, 96, 96)).shape == (1, 1000)


def test_a_transformer_is_fetched_for_the_image_size_asked_for(monkeypatch):
    build = timm.create_model
    asked = []

    def fetched(name, pretrained, **options):
        asked.append((name, pretrained))
        return build(name, **options)

    monkeypatch.setattr(timm, "create_model", fetched)
    network = load_network("timm:test_vit", image_size=96)
    assert network.patch_embed.img_size == (96, 96)
    assert asked[-1] == ("test_vit.r160_in1k", True)


def test_a_torchvision_networks_weights_are_read_from_a_file(tmp_path):
    torch.manual_seed(1)
    state = torchvision.models.squeezenet1_1().state_dict()
    torch.save(state, tmp_path / "net.pth")
    assert same(load_network("torchvision:squeezenet1_1", tmp_path / "net.pth"), state)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("timm:test_vit", "cls_token"),
        ("torchvision:squeezenet1_1", "features.0.weight"),
        ("embedded", "0.weight"),
    ],
)
def test_weights_of_another_network_are_refused_by_their_names(tmp_path, resnet, name, missing):
    torch.save(resnet, tmp_path / "net.pth")
    expected = rf"net\.pth does not hold weights of {name}: .*\b{missing}\b"
    with pytest.raises(WeightsError, match=expected):
        load_network(name, tmp_path / "net.pth")


def test_an_unknown_backbone_is_a_weights_error_with_similar_names():
    with pytest.raises(WeightsError, match="similar names are resnet18"):
        load_network("timm:rsnet18")


def test_timm_weights_that_cannot_be_fetched_are_to_be_given(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsNotGivenError, match="--weights FILE, or --weights timm:") as error:
        load_network("timm:test_resnet")
    assert "\n" not in str(error.value)


def offline(*_args, **_options):
    raise OSError("no network in this test")


def test_weights_that_no_server_has_are_to_be_given():
    with pytest.raises(WeightsNotGivenError, match="mobilenet-v2-tf needs --weights FILE"):
        load_network("mobilenet-v2-tf")


def test_where_weights_are_from_is_said_with_their_licence():
    assert "cc-by-nc-4.0" in weights_source("resnext101-32x8d-wsl")
    assert weights_source("resnet50") == "torchvision's resnet50, IMAGENET1K_V1"


def test_photos_too_small_for_the_network_are_refused():
    with pytest.raises(ModelError, match=r"1x1: raise --recipe.image-size"):
        new_classifier(torchvision.models.squeezenet1_1(), "lca", 3, image_size=17)


@pytest.mark.parametrize(("name", "size"), [("timm:test_vit", 160), ("embedded", 112)])
def test_a_recipe_takes_the_size_that_the_weights_were_trained_at(name, size):
    assert Recipe().for_backbone(name).image_size == size
    assert Recipe(image_size=64).for_backbone(name).image_size == 64
