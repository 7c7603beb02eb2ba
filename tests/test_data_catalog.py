"""Every data set is found by its name, and says so when its photos are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.data.__main__ import main as check_command
from experiments.data.catalog import CATALOG, SOURCES, load_dataset
from experiments.data.dataset import DataError, DataNotGivenError
from experiments.data.source import DataOptions
from experiments.methods import PAPER_DATASETS

NEED_PHOTOS = [name for name in CATALOG if not name.startswith("embedded/")]


def test_no_two_sources_claim_one_name():
    assert sum(len(source.datasets) for source in SOURCES.values()) == len(CATALOG)


def test_the_papers_data_sets_are_there_under_their_titles():
    for title, name in PAPER_DATASETS.items():
        assert CATALOG[name].paper_dataset == title


@pytest.mark.parametrize("name", NEED_PHOTOS)
def test_photos_that_were_not_given_are_no_error_of_the_run(name):
    with pytest.raises(DataNotGivenError, match="--data-root"):
        load_dataset(name, DataOptions(root=None, cache=Path(), image_size=32))


def test_an_unknown_name_lists_the_known():
    with pytest.raises(DataError, match=r"'imagenet'; expected one of .*'grozi-120/in-vitro'"):
        load_dataset("imagenet", DataOptions(root=None, cache=Path(), image_size=32))


@pytest.mark.parametrize("source", ["grocery-store", "grozi-120", "capg-gp", "dm4vm"])
def test_check_of_an_empty_folder_finds_something(tmp_path, source):
    assert SOURCES[source].findings(tmp_path)


def test_photos_of_ones_own_have_a_check_of_their_own(tmp_path, capsys):
    assert check_command(["check", "folder", "--data-root", str(tmp_path)]) == 2
    assert f"check.py {tmp_path}" in capsys.readouterr().err
