"""The small network's weights: those that come with the code, and how they are made."""

import dataclasses

import torch
from safetensors import safe_open

from experiments.data.folder import load_folder
from experiments.networks.backbones import BUNDLED, load_feature_map
from experiments.training import pretraining
from experiments.training.device import Compute
from tests.products import write_photos

CPU = Compute(torch.device("cpu"), torch.float32)


def test_weights_come_with_the_code_and_say_how_they_were_made():
    assert BUNDLED.stat().st_size < 1_000_000
    with safe_open(BUNDLED, "pt") as file:
        told = file.metadata()
    assert told["made by"] == "python -m experiments.training.pretraining"
    assert float(told["test accuracy"]) > 0.5
    features = load_feature_map("embedded", None)
    assert features(torch.zeros(1, 3, 112, 112)).shape == (1, 128, 7, 7)


def test_pretraining_writes_weights_that_load(tmp_path, monkeypatch):
    dataset = load_folder(write_photos(tmp_path / "photos"), train_repeats=1)
    monkeypatch.setattr(pretraining, "load_scenario", lambda *_, **__: dataset)
    recipe = dataclasses.replace(pretraining.PRETRAINING, epochs=1, batch_size=6, image_size=32)
    monkeypatch.setattr(pretraining, "PRETRAINING", recipe)
    file = tmp_path / "made" / "weights.safetensors"
    pretraining.main(file, tmp_path / "work")
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["classes"] == "3"
    trained = load_feature_map("embedded", file)
    torch.manual_seed(0)
    untrained = pretraining.find_backbone("embedded").build()
    assert not torch.equal(trained[0].weight, untrained[0].weight)
