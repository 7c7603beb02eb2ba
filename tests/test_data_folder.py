"""A folder a class is read as a data set, or refused with what to change."""

from __future__ import annotations

import logging
import os
import sys
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


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Valid", "VAL"])
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


TRAINED = {"train__a": 2, "train__b": 2}


@pytest.mark.parametrize(
    ("photos", "said"),
    [
        ({}, "no classes: {root} has no folders in it; expected"),
        ({"train__c": 3, "test__c": 1}, 'only one class, "c", in {train}: expected at least 2'),
        (
            {**TRAINED, "train__c": 0, "train__d": 0, "test__a": 1},
            "2 of 4 class folders in {train} hold no image",
        ),
        (
            {**TRAINED, "train__c": 0, "train__d": 0, "test__a": 1},
            '"c", "d". Add photos to them, or remove them',
        ),
        (TRAINED, "no test photos: {train} is there, {test} is not"),
        (TRAINED, "Put photos into"),
        ({**TRAINED, "test__a": 0}, "no test photos: no class folder in {test} holds an image"),
        (
            {**TRAINED, "test__a": 1, "validation__a": 0},
            "remove {validation} to hold out training photos",
        ),
        (
            {**TRAINED, "test__a": 1, "validation__a": 1, "val__a": 1},
            "both val/ and validation/, expected one validation folder. Remove",
        ),
        ({"a": 1, "b": 1}, "no class has two photos. Add photos"),
        ({"val__a": 2, "test__a": 1}, 'has "test", "val" but no folder train'),
    ],
)
def test_a_layout_that_cannot_be_used_is_refused_with_what_to_change(tmp_path, photos, said):
    folders = {name: tmp_path / name for name in ("train", "test", "validation")}
    assert said.format(root=tmp_path, **folders) in refusal(tree(tmp_path, **photos))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_classes_that_are_not_trained_on_are_listed(tmp_path, split):
    unknown = {f"{split}__x": 1, f"{split}__y": 1}
    message = refusal(tree(tmp_path, train__a=2, train__b=2, test__a=1, **unknown))
    assert (
        f'{tmp_path / split} has photos of 2 classes that are not trained on: "x", "y"' in message
    )
    assert f"Add their folders to {tmp_path / 'train'}, or remove them" in message


def test_train_repeats_of_zero(tmp_path):
    assert "train_repeats is 0, expected at least 1" in refusal(tmp_path, train_repeats=0)


@pytest.mark.parametrize("option", ["validation_fraction", "test_fraction"])
def test_fractions_are_checked(tmp_path, option):
    assert "is 1.5, expected" in refusal(tree(tmp_path, a=3, b=3), **{option: 1.5})


# Names of splits and of classes


@pytest.mark.parametrize("name", ["testing", "Test", "TESTING"])
def test_a_test_folder_may_be_called_otherwise(tmp_path, name):
    root = tree(tmp_path, Train__a=2, Train__b=2, **{f"{name}__a": 1, f"{name}__b": 1})
    dataset = load_folder(root, validation_fraction=0)
    assert split_of(dataset.test, root) == {name}
    assert split_of(dataset.train, root) == {"Train"}


def test_without_a_train_folder_products_may_be_called_valid_and_testing(tmp_path):
    assert load_folder(tree(tmp_path, valid=2, testing=2)).classes == ("testing", "valid")


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_composed_and_decomposed_names_are_one_class(tmp_path, caplog):
    root = tree(tmp_path, train__a=2, test__a=1)
    tree(root, **{f"train__{COMPOSED}": 3, f"train__{DECOMPOSED}": 2, f"test__{DECOMPOSED}": 1})
    folders = len(list((root / "train").iterdir()))
    dataset = load_folder(root, validation_fraction=0)
    assert dataset.classes == ("a", COMPOSED)
    assert [sample.label for sample in dataset.test] == [0, 1]
    if folders == 3:  # a file system may see one name itself
        assert [sample.label for sample in dataset.train] == [0, 0, 1, 1, 1, 1, 1]
    assert "1 class names are spelled in composed and in decomposed characters" in caplog.text
    assert COMPOSED in dataset.notes[0]


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode here")
def test_names_that_are_no_text_are_classes_with_printable_names(tmp_path, caplog):
    tree(tmp_path, b=2)
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for k in range(2):
        Path(os.fsdecode(folder + b"/%d\xe9.jpg" % k)).touch()
    dataset = load_folder(tmp_path)
    assert dataset.classes == ("b", "caf\\xe9")
    assert all(sample.path.exists() for sample in (*dataset.train, *dataset.test))
    "".join((*dataset.classes, *dataset.notes)).encode()
    assert "no UTF-8; the classes are called: caf\\xe9" in caplog.text


# What is among the photos and not read


def test_system_folders_and_results_are_no_classes_and_are_counted_once(tmp_path, caplog):
    root = tree(tmp_path, a=3, b=3, lost=0, **{"@eaDir": 2, "a__@eaDir": 2, "#recycle": 1})
    (root / "lost").rename(root / "lost+found")
    (root / "runs" / "cells").mkdir(parents=True)
    (root / "runs" / "finetune.json").touch()
    (root / "a" / "1.HEIC").touch()
    dataset = load_folder(root)
    assert dataset.classes == ("a", "b")
    assert_partition(dataset, 6)
    assert "4 hidden, system" in caplog.text
    assert "2 @eaDir" in caplog.text
    assert "1 results and pictures of earlier runs, left out: runs" in caplog.text
    assert caplog.text.count("1 HEIC") == 1
    assert len(dataset.notes) == 3
    caplog.clear()
    assert load_folder(root, quiet=True).notes == dataset.notes
    assert not caplog.records


def test_a_class_of_formats_that_are_not_read_is_told_from_an_empty_one(tmp_path):
    root = tree(tmp_path, a=2, b=0, c=0)
    (root / "b" / "1.CR2").touch()
    message = refusal(root)
    assert '"b" (1 photos of a format that is not read, left out: 1 CR2' in message
    assert '"c". Add photos' in message


def test_a_linked_class_folder_is_a_class(tmp_path):
    tree(tmp_path / "elsewhere", b=3)
    root = tree(tmp_path / "shop", a=3)
    (root / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (root / "a" / "all").symlink_to(root)
    dataset = load_folder(root)
    assert_partition(dataset, 6)
    assert "links to folders that are read anyway, left out: a/all" in dataset.notes[0]
