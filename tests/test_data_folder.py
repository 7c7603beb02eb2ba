"""A folder a class is read as a data set, or refused with what to change."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from experiments.data.dataset import DataError, ProductDataset, Sample
from experiments.data.folder import load_folder


def tree(root: Path, **photos: int) -> Path:
    """Make empty photos; "train__cola=3" makes three in train/cola."""
    for name, count in photos.items():
        folder = root.joinpath(*name.split("__"))
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (folder / f"{index:02}.jpg").touch()
    return root


def refusal(root: Path, **options) -> str:
    with pytest.raises(DataError) as raised:
        load_folder(root, **options)
    return str(raised.value)


def split_of(samples: tuple[Sample, ...], root: Path) -> set[str]:
    return {sample.path.relative_to(root).parts[0] for sample in samples}


def assert_partition(dataset: ProductDataset, total: int) -> None:
    parts = [dataset.train, dataset.validation, dataset.test]
    assert sum(map(len, parts)) == len({sample.path for part in parts for sample in part}) == total


def test_splits_come_from_their_folders(tmp_path):
    root = tree(tmp_path / "shop", train__b=20, train__a=10, test__a=2, test__b=3)
    dataset = load_folder(root)
    assert dataset.name == "folder/shop"
    assert dataset.classes == ("a", "b")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [27, 3, 5]
    assert split_of(dataset.train + dataset.validation, root) == {"train"}
    assert split_of(dataset.test, root) == {"test"}
    assert_partition(dataset, 35)
    for sample in dataset.train + dataset.validation + dataset.test:
        assert sample.path.parent.name == dataset.classes[sample.label]


@pytest.mark.parametrize("name", ["validation", "val"])
def test_a_validation_folder_is_used(tmp_path, name):
    root = tree(tmp_path, train__a=10, train__b=10, test__a=1, test__b=1, **{f"{name}__a": 2})
    dataset = load_folder(root)
    assert len(dataset.train) == 20
    assert [sample.path.parent for sample in dataset.validation] == [root / name / "a"] * 2


def test_nested_folders_belong_to_their_class(tmp_path):
    root = tree(tmp_path, train__a__front=1, train__a__back=1, train__b=2, test__b=1)
    dataset = load_folder(root, validation_fraction=0)
    assert [sample.label for sample in dataset.train] == [0, 0, 1, 1]


def test_without_train_a_test_set_is_split_off_and_said(tmp_path, caplog):
    root = tree(tmp_path, a=20, b=10)
    dataset = load_folder(root)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [21, 3, 6]
    assert_partition(dataset, 30)
    assert "6 of its 30 photos" in caplog.text
    assert load_folder(root) == dataset
    assert load_folder(root, seed=1).test != dataset.test


@pytest.mark.parametrize(("photos", "repeats"), [(150, 1), (149, 2), (10, 15), (1, 16)])
def test_an_epoch_has_about_300_samples(tmp_path, photos, repeats):
    root = tree(tmp_path, train__a=photos, train__b=photos, test__a=1)
    assert load_folder(root, validation_fraction=0).train_repeats == repeats
    assert load_folder(root, train_repeats=3).train_repeats == 3


def test_a_class_without_test_photos_is_logged(tmp_path, caplog):
    load_folder(tree(tmp_path, train__a=2, train__b=2, test__a=1))
    assert '1 classes have no test photos: "b"' in caplog.text


def test_what_is_left_out_is_logged(tmp_path, caplog):
    root = tree(tmp_path, train__a=2, train__b=2, test__a=1, test__b=1, raw=1, train=1)
    dataset = load_folder(root)
    assert_partition(dataset, 6)
    assert 'not a split, left out: "raw"' in caplog.text
    assert "1 photos in no class folder" in caplog.text


def test_a_complete_layout_is_silent(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    load_folder(tree(tmp_path, train__a=2, train__b=2, test__a=1, test__b=1))
    assert not caplog.records


def test_hidden_folders_are_no_classes(tmp_path):
    root = tree(tmp_path, train__a=2, train__b=2, test__a=1, **{"train__.cache": 2})
    assert load_folder(root).classes == ("a", "b")


def test_missing_folder(tmp_path):
    message = refusal(tmp_path / "nowhere")
    assert f"no folder {tmp_path / 'nowhere'}: expected <root>/train/<class>" in message
    assert "Check the path" in message


def test_root_is_a_file(tmp_path):
    (tmp_path / "photos.zip").touch()
    assert "photos.zip is a file, not a folder: expected" in refusal(tmp_path / "photos.zip")


def test_all_empty_classes_are_named(tmp_path):
    message = refusal(tree(tmp_path, train__a=1, train__b=0, train__c=0, train__d=1, test__a=1))
    assert f"2 of 4 class folders in {tmp_path / 'train'} hold no image" in message
    assert '"b", "c". Add photos to them, or remove them' in message


def test_no_classes(tmp_path):
    assert f"no classes: {tmp_path} has no folders in it; expected" in refusal(tmp_path)


def test_one_class(tmp_path):
    message = refusal(tree(tmp_path, train__cola=3, test__cola=1))
    assert 'only one class, "cola"' in message
    assert "expected at least 2" in message


@pytest.mark.parametrize("split", ["test", "validation"])
def test_classes_that_are_not_trained_on_are_listed(tmp_path, split):
    unknown = {f"{split}__x": 1, f"{split}__y": 1}
    message = refusal(tree(tmp_path, train__a=2, train__b=2, test__a=1, **unknown))
    assert (
        f'{tmp_path / split} has photos of 2 classes that are not trained on: "x", "y"' in message
    )
    assert f"Add their folders to {tmp_path / 'train'}, or remove them" in message


def test_no_test_folder(tmp_path):
    message = refusal(tree(tmp_path, train__a=2, train__b=2))
    assert f"no test photos: {tmp_path / 'train'} is there, {tmp_path / 'test'} is not" in message
    assert "Put photos into" in message


def test_no_photos_in_the_test_folder(tmp_path):
    message = refusal(tree(tmp_path, train__a=2, train__b=2, test__a=0))
    assert f"no test photos: no class folder in {tmp_path / 'test'} holds an image" in message


def test_no_photos_in_the_validation_folder(tmp_path):
    message = refusal(tree(tmp_path, train__a=2, train__b=2, test__a=1, validation__a=0))
    assert f"remove {tmp_path / 'validation'} to hold out training photos" in message


def test_two_validation_folders(tmp_path):
    root = tree(tmp_path, train__a=2, train__b=2, test__a=1, validation__a=1, val__a=1)
    assert "both validation/ and val/, expected one. Remove" in refusal(root)


def test_nothing_to_split_off(tmp_path):
    assert "no class has two photos. Add photos" in refusal(tree(tmp_path, a=1, b=1))


def test_splits_without_train_are_not_taken_for_classes(tmp_path):
    message = refusal(tree(tmp_path, Train__a=2, test__a=1))
    assert 'has "Train", "test" but no folder train (in lower case)' in message


def test_train_repeats_of_zero(tmp_path):
    assert "train_repeats is 0, expected at least 1" in refusal(tmp_path, train_repeats=0)


@pytest.mark.parametrize("option", ["validation_fraction", "test_fraction"])
def test_fractions_are_checked(tmp_path, option):
    assert "is 1.5, expected" in refusal(tree(tmp_path, a=3, b=3), **{option: 1.5})
