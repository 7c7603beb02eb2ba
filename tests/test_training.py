import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.backbones import Normalization, small_resnet
from experiments.data.folder import load_folder
from experiments.device import Compute, DeviceError, resolve_compute, share_cores
from experiments.model import ModelError, ProductClassifier
from experiments.photos import Photos
from experiments.recipe import Recipe
from experiments.training import Score, Trainer
from tests.products import write_photos

RECIPE = Recipe(epochs=3, batch_size=6, image_size=32)
CPU = Compute(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_photos(tmp_path_factory.mktemp("products") / "photos")
    return load_folder(root, validation_fraction=0.3, train_repeats=2)


@pytest.fixture(scope="module")
def photos(dataset):
    return Photos.load(dataset, RECIPE, Normalization())


def make_trainer(checkpoint: Path, recipe: Recipe = RECIPE, head: str = "lca") -> Trainer:
    torch.manual_seed(0)
    model = ProductClassifier(small_resnet(), head, 3, recipe.image_size)
    return Trainer(model, nn.CrossEntropyLoss(), recipe, CPU, seed=0, checkpoint=checkpoint)


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return trainer.model.state_dict()


class StoppedError(Exception):
    pass


def stop_after(trainer: Trainer, epochs: int, monkeypatch) -> None:
    save = trainer._save

    def save_then_stop(scheduler):
        save(scheduler)
        if trainer.progress.epoch == epochs:
            raise StoppedError

    monkeypatch.setattr(trainer, "_save", save_then_stop)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_interrupted_run_ends_bitwise_like_an_uninterrupted_one(
    photos, tmp_path, monkeypatch, ema_decay
):
    recipe = dataclasses.replace(RECIPE, ema_decay=ema_decay)
    whole = make_trainer(tmp_path / "whole.pt", recipe)
    whole.fit(photos.train(0), photos.validation)

    stopped = make_trainer(tmp_path / "stopped.pt", recipe)
    stop_after(stopped, 2, monkeypatch)
    with pytest.raises(StoppedError):
        stopped.fit(photos.train(0), photos.validation)
    resumed = make_trainer(tmp_path / "stopped.pt", recipe)
    resumed.fit(photos.train(0), photos.validation)

    assert resumed.progress.history == whole.progress.history
    for key, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(resumed)[key]), key


def test_same_seed_same_weights_whatever_the_number_of_workers(photos, tmp_path):
    alone, helped = make_trainer(tmp_path / "a.pt"), make_trainer(tmp_path / "b.pt")
    helped.workers = 2
    for trainer in (alone, helped):
        trainer.fit(photos.train(0), photos.validation)
    assert alone.progress.history == helped.progress.history


def scripted_scores(monkeypatch, accuracies):
    scores = iter([Score(accuracy, 1.0, torch.empty(0)) for accuracy in accuracies])
    monkeypatch.setattr("experiments.training._score", lambda *_: next(scores))


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.2, 0.9, 0.5], 2), ([0.9, 0.2, 0.9], 3), ([0.9, 0.9, 0.2], 2), ([0.0, 0.0, 0.0], 3)],
)
def test_best_epoch_has_the_highest_validation_accuracy_the_later_one_of_a_tie(
    photos, tmp_path, monkeypatch, accuracies, best
):
    trainer = make_trainer(tmp_path / "c.pt")
    scripted_scores(monkeypatch, accuracies)
    kept = {}
    finish = trainer._finish_epoch

    def remember(*arguments):
        finish(*arguments)
        kept[trainer.progress.epoch] = {k: v.clone() for k, v in weights_of(trainer).items()}

    monkeypatch.setattr(trainer, "_finish_epoch", remember)
    assert trainer.fit(photos.train(0), photos.validation).best_epoch == best
    for key, value in kept[best].items():
        assert torch.equal(value, weights_of(trainer)[key]), key


def test_without_validation_photos_the_last_epoch_is_kept(photos, tmp_path):
    assert make_trainer(tmp_path / "c.pt").fit(photos.train(0), None).best_epoch == 3


def test_training_lowers_the_loss_and_learns_the_products(photos, tmp_path):
    recipe = dataclasses.replace(
        RECIPE, epochs=8, backbone_lr=0.05, head_lr=0.1, freeze_batch_norm=False
    )
    trainer = make_trainer(tmp_path / "c.pt", recipe, head="gap")
    progress = trainer.fit(photos.train(0), photos.validation)
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"]
    assert trainer.score(photos.test).accuracy > 0.5  # chance is 1/3


def test_training_that_diverges_is_stopped_with_advice(photos, tmp_path):
    recipe = dataclasses.replace(RECIPE, backbone_lr=1e30, head_lr=1e30)
    with pytest.raises(ModelError, match=r"lower --recipe\.backbone-lr"):
        make_trainer(tmp_path / "c.pt", recipe).fit(photos.train(0), None)


def test_frozen_batch_norm_keeps_its_statistics(photos, tmp_path):
    statistics = {}
    for freeze in (True, False):
        trainer = make_trainer(
            tmp_path / f"{freeze}.pt", dataclasses.replace(RECIPE, freeze_batch_norm=freeze)
        )
        trainer.fit(photos.train(0), photos.validation)
        statistics[freeze] = weights_of(trainer)["features.1.running_mean"]
    assert not statistics[True].any(), "a fresh BatchNorm's running mean is 0"
    assert statistics[False].any()


def test_biases_and_normalisation_are_not_decayed(tmp_path):
    trainer = make_trainer(tmp_path / "c.pt")
    for group in trainer.optimizer.param_groups:
        matrices = all(parameter.dim() > 1 for parameter in group["params"])
        assert group["weight_decay"] == (RECIPE.weight_decay if matrices else 0)
    counted = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert counted == len(list(trainer.model.parameters()))


def test_the_learning_rate_warms_up_to_its_peak_and_falls_to_nothing(photos, tmp_path):
    trainer = make_trainer(tmp_path / "c.pt")
    rates = []
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[-1]["lr"])
    )
    trainer.fit(photos.train(0), None)
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(RECIPE.head_lr, rel=0.05)
    assert 0 < peak < len(rates) / 2
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.1 * RECIPE.head_lr


def test_feature_map_of_one_position_is_refused():
    with pytest.raises(ModelError, match=r"1x1.*image-size"):
        ProductClassifier(small_resnet(), "lca", 3, image_size=16)


@pytest.mark.parametrize("name", ["cuda:99", "nonsense"])
def test_device_that_is_not_there_is_refused(name):
    with pytest.raises(DeviceError, match=name):
        resolve_compute(name)


def test_torch_and_the_workers_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert [share_cores(CPU, workers) for workers in (None, 0, 1, 9)] == [2, 0, 1, 9]
    assert threads == [2, 4, 3, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    share_cores(CPU)
    assert len(threads) == 4, "the user's own choice stands"


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 0}, {"warmup": 1.0}, {"head_lr": 0.0}]
)
def test_recipe_out_of_range_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"recipe.{name} is"):
        Recipe(**wrong)
