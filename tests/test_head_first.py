"""The head trained first, or alone, on maps of the frozen backbone."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from experiments.data.dataset import Sample
from experiments.data.torch_dataset import PhotoDataset
from experiments.finetune import main
from experiments.methods import METHODS
from experiments.training.device import Compute
from experiments.training.feature_maps import MapDataset, MapStore
from experiments.training.head_first import _standardised
from experiments.training.layer_groups import frozen_groups, layer_groups
from experiments.training.recipe import Recipe
from experiments.training.trainer import Trainer
from lca_fused import LCA
from lca_fused.backbones import small_resnet
from lca_fused.classifier import Classifier
from lca_fused.pretrained import load_classifier
from tests.products import write_photos, write_weights

CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.finetune.attempt_report", lambda _: False)
    photos, weights = write_photos(tmp_path / "photos"), write_weights(tmp_path / "weights.pt")
    return [
        *(str(photos), "--backbone", "embedded", "--weights", str(weights), "--workers", "0"),
        *("--recipe.image-size", "32", "--recipe.batch-size", "6", "--recipe.patience", "0"),
        *("--recipe.epochs", "2", "--recipe.head-epochs", "3", "--recipe.views", "2"),
        *("--precision", "float32", "--device", "cpu"),
    ]


def cell(output) -> dict:
    (name,) = output.glob("cells/folder/photos/lca-*.json")
    return json.loads(name.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("finetune", ["head", "last-stages", "all"])
@pytest.mark.parametrize("start", ["random", "whitened"])
def test_what_learns_and_what_stays(arguments, tmp_path, finetune, start):
    options = ["--recipe.finetune", finetune, "--recipe.start", start]
    assert main([*arguments, *options, "--output", str(tmp_path / "runs")]) == 0
    found = cell(tmp_path / "runs")
    epochs = [record["epoch"] for record in found["history"]]
    assert epochs == ([1, 2, 3] if finetune == "head" else [1, 2, 3, 4, 5])
    assert found["best_epoch"] in epochs
    (model,) = (tmp_path / "runs").glob("cells/folder/photos/*.model")
    trained = load_classifier(model).backbone.state_dict()
    pretrained = torch.load(tmp_path / "weights.pt", weights_only=True)
    changed = {name for name, value in pretrained.items() if not torch.equal(trained[name], value)}
    assert (not changed) == (finetune == "head" or found["best_epoch"] <= 3)
    assert finetune != "last-stages" or not any(name.startswith("0.") for name in changed)
    assert not (tmp_path / "runs" / "maps").exists()
    assert not list((tmp_path / "runs").rglob("*.checkpoint.pt"))


def test_a_method_with_a_recipe_of_its_own_is_trained_by_it(arguments, tmp_path):
    assert main([*arguments, "--method", "gap-frozen", "--output", str(tmp_path / "runs")]) == 0
    (file,) = (tmp_path / "runs").glob("cells/folder/photos/gap-frozen-*.json")
    found = json.loads(file.read_text())
    assert found["settings"]["recipe"]["finetune"] == "head"
    assert len(found["history"]) == found["settings"]["recipe"]["head_epochs"] == 12


def test_tensorboard_shows_every_epoch_once_though_one_was_interrupted(
    arguments, tmp_path, monkeypatch
):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    save, saved = Trainer._save, []

    def interrupt(trainer, stepper):
        saved.append(trainer.progress.epoch)
        if len(saved) in (2, 5):  # of the head's epochs and of the others; they are logged already
            raise KeyboardInterrupt
        save(trainer, stepper)

    monkeypatch.setattr(Trainer, "_save", interrupt)
    options = [*arguments, "--output", str(tmp_path / "runs"), "--tensorboard"]
    assert [main(options) for _ in range(3)] == [130, 130, 0]
    assert saved == [1, 2, 2, 3, 1, 1, 2]
    history = cell(tmp_path / "runs")["history"]
    (folder,) = (tmp_path / "runs" / "tensorboard").glob("folder/photos/lca-seed0-*")
    events = accumulators.EventAccumulator(str(folder)).Reload()
    names = {
        "loss/training": "train_loss",
        "loss/validation": "validation_loss",
        "accuracy/validation": "validation_accuracy",
    }
    for shown, name in names.items():
        points = events.Scalars(shown)
        assert [point.step for point in points] == [1, 2, 3, 4, 5], shown
        expected = [record[name] for record in history]
        assert [point.value for point in points] == pytest.approx(expected)
    assert len(events.Scalars("learning rate/head")) == 5
    assert [point.step for point in events.Scalars("learning rate/backbone")] == [4, 5]
    assert [image.step for image in events.Images("training photos")] == [4]


@pytest.mark.parametrize("head_epochs", ["0", "3"])
def test_too_few_photos_to_whiten_is_one_sentence(
    arguments, tmp_path, caplog, monkeypatch, head_epochs
):
    monkeypatch.setattr("experiments.training.head_first._ENOUGH", 1)
    options = ["--recipe.start", "whitened", "--recipe.head-epochs", head_epochs]
    assert main([*arguments, *options, "--output", str(tmp_path / "runs")]) == 1
    assert "the training photos cannot whiten LCA: the maps have" in caplog.text
    assert "--recipe.start random" in caplog.text


@pytest.mark.parametrize("method", ["gap-gallery", "lca-gallery"])
def test_a_gallery_of_the_training_photos_is_a_row_without_training(arguments, tmp_path, method):
    assert main([*arguments, "--method", method, "--output", str(tmp_path / "runs")]) == 0
    (model,) = (tmp_path / "runs").glob("cells/folder/photos/*.model")
    classifier = load_classifier(model)
    assert classifier.classifier.counts() == {"apple": 1, "lime": 1, "plum": 1}
    (file,) = (tmp_path / "runs").glob("cells/folder/photos/*.json")
    found = json.loads(file.read_text())
    tested = sorted((tmp_path / "photos/test").rglob("*.png"))
    named = [prediction.name for prediction in classifier.predict(tested)]
    assert named == [found["classes"][top5[0]] for top5 in found["top5"]]
    right = [top5[0] == label for top5, label in zip(found["top5"], found["labels"], strict=True)]
    assert sum(right) > 8
    assert found["history"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "epoch"),
    [("lca", 1), ("lca", 4), ("lca-arcface", 4)],
    ids=["head", "everything", "everything, directions"],
)
def test_interrupted_it_goes_on_where_it_was(
    arguments, tmp_path, monkeypatch, caplog, method, epoch
):
    if method == "lca-arcface":
        pytest.importorskip("pytorch_metric_learning")
    arguments += ["--method", method]
    assert main([*arguments, "--output", str(tmp_path / "undisturbed")]) == 0
    trained = []
    train_epoch = Trainer._train_epoch

    def interrupt(trainer, *others):
        trained.append(trainer.progress.epoch)
        if len(trained) == epoch + 1:
            raise KeyboardInterrupt
        return train_epoch(trainer, *others)

    monkeypatch.setattr(Trainer, "_train_epoch", interrupt)
    assert main([*arguments, "--output", str(tmp_path / "runs")]) == 130
    assert "the same command goes on" in caplog.text
    assert main([*arguments, "--output", str(tmp_path / "runs")]) == 0
    assert trained == ([0, 1, 1, 2, 0, 1] if epoch == 1 else [0, 1, 2, 0, 1, 1])
    expected, found = cell(tmp_path / "undisturbed"), cell(tmp_path / "runs")
    for name in ("top5", "best_epoch", "history"):
        assert found[name] == expected[name]
    weights, resumed = (
        load_classifier(next((tmp_path / run).rglob("*.model"))).state_dict()
        for run in ("undisturbed", "runs")
    )
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())


def test_the_classifier_alone_does_in_the_end_what_it_learnt_on_standardised_features():
    torch.manual_seed(0)
    maps = 7 + 3 * torch.randn(1, 20, 5, 4, 4)
    model = Classifier(nn.Identity(), LCA.from_features(maps[0], 4), 3)
    train = MapDataset(_samples(20), maps.half().numpy())
    with _standardised(model, train, CPU) as head:
        features = head.pool(maps[0])
        seen = head.classifier[0](features)
        torch.testing.assert_close(seen.mean(0), torch.zeros(4), atol=1e-2, rtol=0)
        torch.testing.assert_close(seen.std(0, correction=0), torch.ones(4), atol=1e-2, rtol=0)
        with torch.no_grad():  # as training would
            head.classifier[1].weight.mul_(2)
        expected = head(maps[0])
    torch.testing.assert_close(model(maps[0]), expected, atol=1e-4, rtol=1e-4)


def _samples(count: int, path="x") -> tuple[Sample, ...]:
    return tuple(Sample(path, label % 3) for label in range(count))


@pytest.fixture
def photos(tmp_path):
    root = write_photos(tmp_path / "photos", train=2)
    files = sorted((root / "train").rglob("*.png"))
    samples = [Sample(file, number // 2) for number, file in enumerate(files)]
    return PhotoDataset(samples, _brightened, repeats=3)


def _brightened(photo):
    return photo.float() / 255 + torch.rand(())


@pytest.fixture
def store(tmp_path):
    return MapStore(nn.AvgPool2d(16), CPU, tmp_path / "maps", {"backbone": "pooling"})


def test_maps_are_those_of_the_augmented_photos_and_epochs_take_them_in_turn(photos, store):
    train = store.training(photos, Recipe(views=2))
    assert len(train) == len(photos) == 18
    for epoch in range(5):
        photos.set_epoch(epoch % 2)
        train.set_epoch(epoch)
        for index in (0, 7, 17):
            (photo, label), (found, its_label) = photos[index], train[index]
            assert its_label == label
            expected = nn.AvgPool2d(16)(photo[None])[0]
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_stored_maps_are_read_and_no_photo_is(photos, store, monkeypatch):
    first = store.training(photos, Recipe(views=2))
    monkeypatch.setattr(MapStore, "_write", lambda *_: pytest.fail("computed"))
    again = store.training(photos, Recipe(views=2))
    np.testing.assert_array_equal(first.maps, again.maps)
    for other in (replace(store, settings={"backbone": "another"}), store):
        photos.seed += other is store
        with pytest.raises(pytest.fail.Exception):
            other.training(photos, Recipe(views=2))


def test_a_map_pass_that_is_interrupted_leaves_nothing_half_done(photos, store, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MapDataset, "__init__", interrupt)
    monkeypatch.setattr(np.memmap, "flush", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.plain(photos)
    assert not list(store.folder.iterdir())


def test_fewer_views_are_taken_where_the_budget_holds_no_more_and_it_is_said(photos, store, caplog):
    caplog.set_level(logging.INFO)
    of_a_view = 18 * 3 * 3 * 3 * 2
    train = store.training(photos, Recipe(views=5, maps_gib=2.5 * of_a_view / 2**30))
    assert len(train.maps) == 2 * photos.repeats
    assert "2 views of each training photo rather than 5" in caplog.text


def test_last_stages_are_a_third_of_the_layers():
    backbone = small_resnet()
    groups = len(layer_groups(backbone))
    assert frozen_groups(backbone, Recipe()) == 0
    assert frozen_groups(backbone, Recipe(finetune="last-stages")) == groups - groups // 3 < groups
    assert frozen_groups(backbone, Recipe(finetune="last-stages", freeze=groups)) == groups


def test_a_head_that_alone_learns_needs_epochs():
    with pytest.raises(ValueError, match="expected 1 or more: the head learns in these alone"):
        Recipe(finetune="head")


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_what_a_method_changes_of_the_recipe_is_valid(method):
    assert method.adapt(Recipe()).gamma == Recipe().gamma
