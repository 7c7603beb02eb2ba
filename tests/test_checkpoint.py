"""A stored model comes back as the network it was, or says what is wrong with it."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import asdict

import pytest
import torch

from experiments.networks.backbones import Normalization
from experiments.networks.checkpoint import load_classifier
from experiments.storage import CheckpointError, save_checkpoint
from experiments.training.recipe import Recipe
from tests.products import COLOURS
from tests.stored_models import SIDE, build, settings, write_model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lca-seed0.model.pt"


@pytest.mark.parametrize("method", ["gap", "gap-fc", "gem", "rmac", "lca", "lca-me"])
def test_gives_the_logits_of_the_model_that_was_stored(path, method):
    images = torch.randn(3, 3, SIDE, SIDE)
    loaded = load_classifier(write_model(path, method))
    assert not loaded.model.training
    torch.testing.assert_close(loaded.model(images), build(method)(images), rtol=0, atol=0)


def test_holds_what_photos_must_go_through(path):
    loaded = load_classifier(write_model(path))
    assert loaded.classes == tuple(sorted(COLOURS))
    assert loaded.recipe == Recipe(image_size=SIDE)
    assert loaded.normalization == Normalization()
    assert loaded.settings["method"] == "lca"


def test_needs_no_network_and_leaves_the_callers_random_numbers_alone(path, monkeypatch):
    write_model(path)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", pytest.fail)
    monkeypatch.setattr("experiments.networks.backbones.fetch_weights", pytest.fail)
    before = torch.get_rng_state()
    load_classifier(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."]
)
def test_tensors_of_a_wrapped_model_are_accepted(path, prefix):
    state = {f"{prefix}{key}": value for key, value in build().state_dict().items()}
    load_classifier(write_model(path, state=state))


def test_tensors_of_a_compiled_part_are_accepted(path):
    state = build().state_dict()
    state = {key.replace("features.", "features._orig_mod.", 1): state[key] for key in state}
    load_classifier(write_model(path, state=state))


def test_recipe_fields_that_are_left_out_have_their_defaults(path):
    loaded = load_classifier(write_model(path, recipe={"image_size": SIDE, "epochs": 3}))
    assert loaded.recipe == Recipe(image_size=SIDE, epochs=3)


def test_recipe_read_from_json_is_the_same(path):
    recipe = asdict(Recipe(image_size=SIDE))
    recipe["augmentation"]["crop_scale"] = list(recipe["augmentation"]["crop_scale"])
    assert load_classifier(write_model(path, recipe=recipe)).recipe == Recipe(image_size=SIDE)


class Payload:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_code_in_a_checkpoint_is_not_run(path, tmp_path):
    target = tmp_path / "made by the checkpoint"
    torch.save({"model": Payload(str(target)), "classes": ["a"], "settings": settings()}, path)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_classifier(path)
    assert not target.exists()
    with zipfile.ZipFile(path) as archive:  # the payload is live: plain unpickling would run it
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        pickle.loads(archive.read(name))
    assert target.exists()


REFUSED = {
    "method": ("nonsense", "method 'nonsense'; expected one of .*lca-me"),
    "backbone": ("nonsense", "backbone 'nonsense'; expected one of .*resnet50"),
    "recipe": ({"epochs": 0}, r"recipe\.epochs is 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_are_not_known_are_named(path, name):
    value, message = REFUSED[name]
    with pytest.raises(CheckpointError, match=message):
        load_classifier(write_model(path, **{name: value}))


@pytest.mark.parametrize("name", ["method", "backbone", "recipe"])
def test_settings_that_are_missing_are_named(path, name):
    with pytest.raises(CheckpointError, match=name):
        load_classifier(write_model(path, **{name: None}))


def test_recipe_of_a_newer_version_is_refused_with_the_field(path):
    with pytest.raises(CheckpointError, match=r"Recipe has no gravity.*another version"):
        load_classifier(write_model(path, recipe={"image_size": SIDE, "gravity": 9.8}))


def test_keypoint_matching_has_no_network(path):
    with pytest.raises(CheckpointError, match="keypoint matching"):
        load_classifier(write_model(path, state={}, method="sift"))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no file .*nowhere\.model\.pt"):
        load_classifier(tmp_path / "nowhere.model.pt")


def test_file_that_is_no_checkpoint_is_named(path):
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=path.name):
        load_classifier(path)


def test_training_state_is_told_from_a_stored_model(path):
    save_checkpoint({"model": build().state_dict(), "optimizer": {}}, path)
    with pytest.raises(CheckpointError, match=r"classes is missing.*\*\.model\.pt"):
        load_classifier(path)


def test_bare_list_is_refused(path):
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="it holds a list"):
        load_classifier(path)


def test_tensors_of_another_network_are_named(path):
    state = build().state_dict()
    state["extra"] = state.pop("classifier.bias")
    with pytest.raises(CheckpointError, match=r"1 missing \(classifier.bias\); 1 unexpected"):
        load_classifier(write_model(path, state=state))


def test_another_number_of_classes_is_refused(path):
    state = build().state_dict()
    state["classifier.weight"] = state["classifier.weight"][:2]
    with pytest.raises(CheckpointError, match="of another shape"):
        load_classifier(write_model(path, state=state))


def test_numbers_that_are_not_finite_are_refused(path):
    state = build().state_dict()
    state["head.weight"][0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"not finite in head\.weight"):
        load_classifier(write_model(path, state=state))


def test_what_is_no_tensor_is_refused(path):
    with pytest.raises(CheckpointError, match="no tensor"):
        load_classifier(write_model(path, state=build().state_dict() | {"head.bias": "b"}))
