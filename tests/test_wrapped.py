"""Pretrained weights as trainers store them."""

import argparse
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from experiments.networks.backbones import load_feature_map
from experiments.networks.weights import WeightsError
from lca_fused.backbones import small_resnet


def state(seed=0):
    torch.manual_seed(seed)
    return small_resnet().state_dict()


def named(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


def loaded(path, content):
    torch.save(content, path)
    return load_feature_map("embedded", path).state_dict()


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) for key in expected
    )


WRAPPERS = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: s}}},
    "model": lambda s: {"model": s},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": 0.3},
    "net": lambda s: {"net": s, "acc": 91.2},
    "data parallel": lambda s: named("module.", s),
    "compiled": lambda s: named("_orig_mod.", s),
    "compiled, then data parallel": lambda s: named("module._orig_mod.", s),
    "data parallel, then compiled": lambda s: {"state_dict": named("_orig_mod.module.", s)},
    "a compiled part": lambda s: {k.replace("4.", "4._orig_mod.", 1): v for k, v in s.items()},
    "Lightning": lambda s: {
        "state_dict": named("model.", s) | {"criterion.weight": torch.ones(3)},
        "pytorch-lightning_version": "2.5",
    },
    "a backbone in a detector": lambda s: {"model": named("module.backbone.body.", s)},
    "averaged": lambda s: {"n_averaged": torch.tensor(7)} | named("module.", s),
    "deeply nested": lambda s: {"checkpoint": {"ema": {"module": named("net.", s)}}},
    "with options": lambda s: {
        "model": s,
        "args": argparse.Namespace(lr=0.1, output=Path("runs")),
        "best": np.float64(0.9),
    },
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_is_around_the_weights_is_taken_off_and_said(tmp_path, caplog, name):
    caplog.set_level(logging.INFO)
    assert same(loaded(tmp_path / "x.pt", WRAPPERS[name](state())), state())
    (said,) = caplog.messages
    assert said.startswith(f"weights of {tmp_path / 'x.pt'}: ")
    assert ("_orig_mod." in said) is ("compiled" in name)


def test_safetensors_are_read_as_well(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "x.safetensors"
    safetensors.save_file(named("model.", state()), path)
    assert same(load_feature_map("embedded", path).state_dict(), state())
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_feature_map("embedded", path)


def test_plain_weights_need_no_word(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert same(loaded(tmp_path / "x.pt", state()), state())
    assert not caplog.messages


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model", "ema"),
        ("student", "teacher"),
    ],
)
def test_averaged_weights_are_taken_where_there_are_both(tmp_path, caplog, plain, averaged):
    caplog.set_level(logging.INFO)
    content = {plain: state(0), averaged: named("module.", state(1))}
    assert same(loaded(tmp_path / "x.pt", content), state(1))
    assert f"['{averaged}'], names without 'module.'; not ['{plain}']" in caplog.text


def test_averaged_weights_beside_the_others_under_one_key(tmp_path):
    content = {"state_dict": named("model.", state(0)) | named("ema_model.", state(1))}
    assert same(loaded(tmp_path / "x.pt", content), state(1))


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"fc.weight": torch.ones(2, 2)}},
        {"state_dict": {"0.weight": [1.0, 2.0]}},
        {"epoch": 3},
        {},
    ],
)
def test_what_holds_no_weights_of_the_network_is_refused(tmp_path, content):
    with pytest.raises(WeightsError, match="does not hold weights"):
        loaded(tmp_path / "x.pt", content)


def test_a_wrapped_network_that_lacks_a_layer_is_refused_with_its_name(tmp_path):
    content = named("module.", state())
    del content["module.6.conv2.weight"]
    with pytest.raises(WeightsError, match=r"1 missing \(6\.conv2\.weight\)"):
        loaded(tmp_path / "x.pt", content)


# Classifiers of other sizes


@pytest.fixture
def squeezenet():
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_0(num_classes=37).state_dict()


def test_a_classifier_of_another_size_is_named_and_not_needed(tmp_path, caplog, squeezenet):
    caplog.set_level(logging.INFO)
    torch.save({"state_dict": squeezenet}, tmp_path / "x.pt")
    features = load_feature_map("squeezenet1-0", tmp_path / "x.pt")
    assert torch.equal(next(features.parameters()), squeezenet["features.0.weight"])
    assert "classifier.1.weight (37, 512, 1, 1) for (1000, 512, 1, 1)" in caplog.text


def test_weights_without_a_classifier_are_enough(tmp_path, caplog, squeezenet):
    caplog.set_level(logging.INFO)
    headless = {key: value for key, value in squeezenet.items() if "classifier" not in key}
    torch.save(headless, tmp_path / "x.pt")
    load_feature_map("squeezenet1-0", tmp_path / "x.pt")
    assert "classifier.1.weight is missing" in caplog.text


def test_weights_whose_classifier_is_anothers_are_not_fed_photos_of_the_wrong_scaling(tmp_path):
    tensorflows = torchvision.models.mobilenet_v2(num_classes=1001).state_dict()
    torch.save(tensorflows, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="give --backbone mobilenet-v2-tf"):
        load_feature_map("mobilenet-v2", tmp_path / "x.pt")
