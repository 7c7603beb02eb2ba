"""CAPG-GP and DM4VM are read from train and test folders, and counts are held to the published."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from experiments.data.catalog import CATALOG, SOURCES
from experiments.data.dataset import DataError, DataNotGivenError, ProductDataset
from experiments.data.source import DataOptions


def write(folder: Path, classes: int, train: int, test: int) -> Path:
    for split, count in (("train", train), ("test", test)):
        for number in range(classes):
            place = folder / split / f"product{number:03}"
            place.mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (4, 4), (number, k, 0)).save(place / f"{k}.png")
    return folder


def load(name: str, root: Path | None) -> ProductDataset:
    return CATALOG[name].load(DataOptions(root=root, cache=Path(), image_size=32))


def test_capg_gp_is_one_shot(tmp_path, caplog):
    write(tmp_path / "capg-gp", classes=102, train=1, test=2)
    with caplog.at_level(logging.WARNING):
        dataset = load("capg-gp", tmp_path)
    assert not caplog.records
    assert dataset.name == "capg-gp"
    assert len(dataset.classes) == len(dataset.train) == 102
    assert dataset.train_repeats == 12
    assert not dataset.validation
    assert Counter(sample.label for sample in dataset.test) == dict.fromkeys(range(102), 2)
    assert SOURCES["capg-gp"].findings(tmp_path) == []


def test_dm4vm_holds_out_a_tenth(tmp_path, caplog):
    write(tmp_path / "dm4vm", classes=10, train=60, test=3)
    with caplog.at_level(logging.WARNING):
        dataset = load("dm4vm", tmp_path)
    assert not caplog.records
    assert (dataset.name, dataset.train_repeats) == ("dm4vm", 1)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (540, 60, 30)
    for sample in dataset.train + dataset.validation + dataset.test:
        assert sample.path.parent.name == dataset.classes[sample.label]
    assert SOURCES["dm4vm"].findings(tmp_path) == []


def test_they_stand_in_the_papers_columns():
    assert CATALOG["capg-gp"].paper_dataset == "CAPG-GP"
    assert CATALOG["dm4vm"].paper_dataset == "DM4VM"


def test_other_counts_are_a_warning(tmp_path, caplog):
    write(tmp_path / "capg-gp", classes=4, train=2, test=1)
    (tmp_path / "capg-gp" / "train" / "product003" / "1.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(load("capg-gp", tmp_path).classes) == 4
    expected = [
        "4 classes are there, 102 were published",
        "3 classes have another number of training photos than the 1 that were published: "
        "product000 (2), product001 (2), product002 (2)",
    ]
    findings = SOURCES["capg-gp"].findings(tmp_path)
    assert len(findings) == 2
    for text, finding in zip(expected, findings, strict=True):
        assert text in finding
        assert f"capg-gp: {text}" in caplog.text


def test_a_class_without_test_photos_is_found(tmp_path):
    write(tmp_path / "dm4vm", classes=10, train=65, test=1)
    (tmp_path / "dm4vm" / "test" / "product004" / "0.png").unlink()
    assert SOURCES["dm4vm"].findings(tmp_path) == ["there is no test photo of product004"]


@pytest.mark.parametrize(
    ("name", "home"), [("capg-gp", "zju-capg.org/capg-gp.html"), ("dm4vm", "no public page")]
)
@pytest.mark.parametrize("given", [True, False])
def test_nothing_given_says_where_to_get_it(tmp_path, name, home, given):
    with pytest.raises(DataNotGivenError) as raised:
        load(name, tmp_path if given else None)
    assert home in str(raised.value)
    assert str(Path(name, "train")) + "/<class>/" in str(raised.value)
    if given:
        assert SOURCES[name].findings(tmp_path) == [str(raised.value)]


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_split_is_named(tmp_path, missing):
    folder = write(tmp_path / "dm4vm", classes=2, train=1, test=1)
    (folder / missing).rename(folder / "other")
    with pytest.raises(DataError, match=f"dm4vm has no folder {missing}: expected") as raised:
        load("dm4vm", tmp_path)
    assert not isinstance(raised.value, DataNotGivenError)


def test_the_folder_itself_may_be_given(tmp_path):
    folder = write(tmp_path / "CAPG-GP", classes=3, train=1, test=1)
    assert load("capg-gp", folder) == load("capg-gp", tmp_path)
