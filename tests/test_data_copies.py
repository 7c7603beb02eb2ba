"""Copies of a photo, byte for byte: found, told, and kept on one side of a split."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from experiments.data.copies import describe_copies, find_copies
from experiments.data.dataset import ProductDataset, Sample
from experiments.data.folder import load_folder
from experiments.data.splits import stratified_holdout


def write(root: Path, **contents: bytes) -> dict[str, Path]:
    paths = {name: root / f"{name}.jpg" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths


def test_equal_content_is_found_whatever_the_name(tmp_path):
    paths = write(tmp_path, a=b"one", b=b"two", c=b"one", d=b"three", e=b"", f=b"")
    os.link(paths["b"], tmp_path / "hard.jpg")
    (tmp_path / "soft.jpg").symlink_to(paths["d"])
    everything = [*paths.values(), tmp_path / "hard.jpg", tmp_path / "soft.jpg"]
    copies = find_copies([*everything, *everything, tmp_path / "missing.jpg"])
    groups: dict[str, set[str]] = {}
    for path, key in copies.items():
        groups.setdefault(key, set()).add(path.stem)
    assert sorted(map(sorted, groups.values())) == [["a", "c"], ["b", "hard"], ["d", "soft"]]


def test_of_one_size_in_bytes_only_the_same_are_copies(tmp_path):
    paths = write(tmp_path, a=b"one", b=b"two", c=b"six")
    assert find_copies(paths.values()) == {}


def test_copies_are_told_by_what_they_change(tmp_path):
    paths = write(tmp_path, a=b"1", b=b"1", c=b"2", d=b"2", e=b"3", f=b"3", g=b"4")
    a, b, c, d, e, f, g = paths.values()
    dataset = ProductDataset(
        "folder/shop",
        ("apple", "plum"),
        train=(Sample(a, 0), Sample(c, 0), Sample(d, 1), Sample(e, 0), Sample(f, 0)),
        validation=(Sample(g, 0),),
        test=(Sample(b, 0),),
    )
    leak, labels, others = describe_copies(dataset, find_copies(paths.values()))
    assert leak.startswith("1 photos, identical copies, are in two splits")
    assert "a.jpg = " in leak
    assert "b.jpg." in leak
    assert labels.startswith("1 photos, identical copies, are under two labels")
    assert "c.jpg = " in labels
    assert "d.jpg." in labels
    assert others.startswith("1 photos, identical copies, are in one class of one split")
    assert "e.jpg = " in others


@pytest.fixture
def shop(tmp_path):
    """Two classes of 12 files, of which every third one is a copy of the one before."""
    for product in ("apple", "plum"):
        (tmp_path / product).mkdir()
        for k in range(12):
            content = f"{product} {k - (k % 3 == 2)}"
            (tmp_path / product / f"{k:02}.jpg").write_text(content)
    return tmp_path


@pytest.mark.parametrize("seed", range(6))
def test_copies_stay_on_one_side(shop, seed):
    dataset = load_folder(shop, test_fraction=0.3, validation_fraction=0.3, seed=seed)
    contents = [
        {sample.path.read_text() for sample in split}
        for split in (dataset.train, dataset.validation, dataset.test)
    ]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 16
    assert all(contents)
    assert load_folder(shop, test_fraction=0.3, validation_fraction=0.3, seed=seed) == dataset


def test_a_photo_under_two_labels_is_never_tested_on(shop):
    shutil.copy(shop / "apple" / "00.jpg", shop / "plum" / "wrong.jpg")
    wrong = (shop / "apple" / "00.jpg").read_text()
    for seed in range(8):
        dataset = load_folder(shop, test_fraction=0.4, seed=seed)
        held_out = (*dataset.validation, *dataset.test)
        assert wrong not in {sample.path.read_text() for sample in held_out}


def test_a_class_of_copies_alone_is_kept_whole():
    samples = [Sample(Path(f"{k}.jpg"), 0) for k in range(4)]
    copies = {sample.path: "same" for sample in samples}
    rest, held_out = stratified_holdout(samples, 0.5, 0, copies=copies)
    assert (len(rest), len(held_out)) == (4, 0)


def test_a_group_larger_than_its_share_is_held_out_rather_than_nothing():
    samples = [Sample(Path(f"{k}.jpg"), 0) for k in range(6)]
    copies = {sample.path: str(k % 2) for k, sample in enumerate(samples)}
    rest, held_out = stratified_holdout(samples, 0.2, 0, copies=copies)
    assert (len(rest), len(held_out)) == (3, 3)
