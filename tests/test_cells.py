"""What a stored result is called, and what it holds."""

import errno
import os
import unicodedata
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from experiments.data.augment import SMALL_PHOTOS
from experiments.data.dataset import Ground, ProductDataset, Sample
from experiments.study import cells
from experiments.study.cells import Cell, build_classifier, run_cell
from experiments.training.device import Compute
from experiments.training.recipe import Recipe
from experiments.training.trainer import Progress


@pytest.fixture
def cell(tmp_path) -> Cell:
    samples = []
    for k in range(3):
        photo = tmp_path / "store" / "train" / "apple" / f"{k}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(bytes(10 + k))
        samples.append(Sample(photo, 0))
    train, validation, test = ((sample,) for sample in samples)
    dataset = ProductDataset("shop", ("apple",), train, validation, test, train_repeats=4)
    compute = Compute(torch.device("cpu"), torch.bfloat16)
    return Cell(dataset, "lca-me", 1, "mobilenet-v2", None, Recipe(), compute)


def test_a_photo_is_known_by_its_content_and_not_by_its_date_and_size(cell):
    name, photo = cell.path(Path()), cell.dataset.test[0].path
    content, status = photo.read_bytes(), photo.stat()

    def named_again() -> str:
        return replace(cell).path(Path())

    photo.write_bytes(bytes(len(content) - 1) + b"x")
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert named_again() != name, "other bytes, of the same number and date"
    photo.write_bytes(content)
    assert named_again() == name, "the same bytes, written anew"


def test_what_photos_are_used_for_is_part_of_the_name(cell):
    data, photo = cell.dataset, cell.dataset.train[0]
    for changed in (
        replace(data, classes=("pear",)),
        replace(data, train=(replace(photo, label=1),)),
        replace(data, validation=data.test, test=data.validation),
        replace(data, train_repeats=5),
    ):
        assert replace(cell, dataset=changed).path(Path()) != cell.path(Path())


def test_how_photos_are_cut_out_is_part_of_the_name_of_what_is_trained(cell, tmp_path):
    photo, mask = cell.dataset.train[0], tmp_path / "mask.png"

    def named(cell: Cell, mask: Path | Ground | None) -> Path:
        data = replace(cell.dataset, train=(replace(photo, mask=mask),))
        return replace(cell, dataset=data).path(Path())

    mask.write_bytes(b"mask")
    names = {named(cell, how) for how in (None, photo.path, mask, Ground.FILLED)}
    mask.write_bytes(b"another")
    names.add(named(cell, mask))
    assert len(names) == 5
    matching = replace(cell, method="sift")
    assert named(matching, Ground.FILLED) == named(matching, None), "it sees photos as they are"


def test_maps_of_photos_that_are_cut_out_otherwise_are_not_used(cell):
    photo = cell.dataset.train[0]

    def known_by(mask):
        cut = replace(cell, dataset=replace(cell.dataset, train=(replace(photo, mask=mask),)))
        return cells._map_store(cut, SimpleNamespace(backbone=torch.nn.Identity()), Path()).settings

    assert known_by(None) != known_by(photo.path)
    assert known_by(None) == known_by(None)


def test_a_cell_keeps_its_name_when_photos_change_while_it_trains(cell):
    name = cell.path(Path())
    cell.dataset.train[0].path.unlink()
    assert cell.path(Path()) == name


def test_accents_may_be_composed_or_not(cell):
    photo = cell.dataset.test[0]

    def named(name: str) -> Cell:
        path = photo.path.with_name(name)
        path.write_bytes(b"photo")
        return replace(cell, dataset=replace(cell.dataset, test=(replace(photo, path=path),)))

    names = {named(unicodedata.normalize(form, "café.png")).path(Path()) for form in ("NFC", "NFD")}
    assert len(names) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"method": "lca"},
        {"backbone": "resnext101-32x8d-wsl"},
        {"recipe": Recipe(gamma=0.7)},
        {"recipe": Recipe(augmentation=SMALL_PHOTOS)},
        {"compute": Compute(torch.device("cpu"), torch.float32)},
    ],
)
def test_what_changes_the_result_changes_its_name(cell, change):
    assert replace(cell, **change).path(Path()) != cell.path(Path())


def test_the_weights_are_known_by_their_bytes(cell, tmp_path):
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    name = replace(cell, weights=first).path(Path())
    assert replace(cell, weights=second).path(Path()) == name
    first.write_bytes(b"other weights")
    assert replace(cell, weights=first).path(Path()) != name


def test_keypoint_matching_has_no_network_and_networks_match_no_keypoints(cell):
    with pytest.raises(ValueError, match="no network"):
        build_classifier(replace(cell, method="sift"))
    with pytest.raises(ValueError, match="no keypoints"):
        cell.detector()


@pytest.mark.parametrize(
    ("seconds", "rate"), [([9.0, 2.0, 1.0, 2.0], 5), ([9.0, 2.0], 5), ([5.0], 2), ([], None)]
)
def test_speed_is_that_of_the_median_epoch_after_the_first(seconds, rate):
    progress = Progress(epoch=len(seconds), epoch_seconds=seconds)
    assert cells._images_per_second(progress, 10) == rate


def test_finished_matching_is_kept_until_its_result_is_stored(cell, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "no space left on device")

    for sample in (*cell.dataset.train, *cell.dataset.test):
        Image.effect_noise((64, 64), 80).save(sample.path)
    matching, output = replace(cell, method="sift"), tmp_path / "runs"
    checkpoint = matching.path(output).with_suffix(".checkpoint.pt")
    with monkeypatch.context() as patched:
        patched.setattr(cells.Result, "save", full)
        with pytest.raises(OSError, match="no space"):
            run_cell(matching, pytest.fail, output, workers=0)
    assert checkpoint.exists()

    result = run_cell(matching, pytest.fail, output, workers=0)
    assert run_cell(matching, pytest.fail, output, workers=0) == result
    assert not checkpoint.exists()
