import dataclasses

import pytest
import torch

from experiments.data.folder import load_folder
from experiments.data.source import DataOptions
from experiments.networks.backbones import load_feature_map
from experiments.training import pretraining
from experiments.training.device import Compute
from tests.products import write_photos

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture
def pretrain(tmp_path, monkeypatch):
    dataset = load_folder(write_photos(tmp_path / "photos"), train_repeats=1)
    monkeypatch.setattr(pretraining, "load_scenario", lambda *_, **__: dataset)
    recipe = dataclasses.replace(pretraining.PRETRAINING, epochs=1, batch_size=6, image_size=32)
    monkeypatch.setattr(pretraining, "PRETRAINING", recipe)
    options = DataOptions(root=None, cache=tmp_path / "embedded", image_size=32)
    return lambda: pretraining.pretrain_embedded_backbone(tmp_path / "runs", options, CPU, 0)


def test_weights_are_those_of_the_embedded_backbone(pretrain):
    features = load_feature_map("embedded", pretrain())
    assert features(torch.zeros(1, 3, 112, 112)).shape == (1, 128, 7, 7)


def test_the_backbone_is_pretrained_once(pretrain, monkeypatch):
    path = pretrain()
    monkeypatch.setattr(pretraining.Trainer, "fit", pytest.fail)
    assert pretrain() == path
    assert not path.with_suffix(".checkpoint.pt").exists()


def test_another_recipe_is_another_file(pretrain, monkeypatch):
    path = pretrain()
    recipe = dataclasses.replace(pretraining.PRETRAINING, head_lr=0.01)
    monkeypatch.setattr(pretraining, "PRETRAINING", recipe)
    assert pretrain() != path


def test_other_photos_make_another_file(pretrain, tmp_path):
    path = pretrain()
    photo = tmp_path / "photos" / "train" / "apple" / "0.png"
    photo.write_bytes((tmp_path / "photos" / "train" / "lime" / "0.png").read_bytes())
    assert pretrain() != path
