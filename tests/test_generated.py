from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from experiments.data.dataset import DataError
from experiments.data.generated import drawing, scenarios
from experiments.data.generated.__main__ import draw_sheet
from experiments.data.generated.catalogue import assortments, catalogue
from experiments.data.generated.label import GROUNDS, LOGOS
from experiments.data.generated.pack import SHAPES, view
from experiments.data.generated.photos import packshot, store_photo
from experiments.data.generated.scenarios import (
    SCENARIOS,
    SPLITS,
    Scenario,
    load_scenario,
    render_image,
    write_scenario,
)

SIZE = 48
TINY = Scenario("store", 1, 1, 1, 2, train_repeats=3)
TINY_CLASSES = 10
DESIGNS = [design for name in assortments() for design in catalogue(name)]
OF_EACH_SHAPE = {design.shape: design for design in DESIGNS}


@pytest.fixture
def tiny_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setitem(SCENARIOS, "tiny", TINY)
    return write_tiny(tmp_path)


def write_tiny(root: Path, workers: int = 1, size: int = SIZE) -> Path:
    return write_scenario("tiny", root, image_size=size, workers=workers)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def changed(first: np.ndarray, other: np.ndarray) -> float:
    """Share of the pack's pixels that differ visibly."""
    change = np.abs(first[..., :3].astype(int) - other[..., :3]).max(axis=2)
    return float((change > 25).sum() / (first[..., 3] > 0).sum())


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("photograph", [packshot, store_photo])
def test_photos_show_something_and_depend_on_their_random_numbers_alone(photograph, shape):
    first, again, other = (photograph(OF_EACH_SHAPE[shape], rng(i), SIZE) for i in (1, 1, 2))
    channels = 4 if photograph is packshot else 3
    assert (first.shape, first.dtype) == ((SIZE, SIZE, channels), np.uint8)
    assert first.std() > 15
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    if photograph is packshot:
        corner = first[:4, [0, 1, -2, -1]]
        assert corner[..., :3].min() > 205, "on a light ground"
        assert (corner[..., 3].max(), first[..., 3].max()) == (0, 255)


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("yaw", [-0.4, 0.0, 0.4])
def test_a_pack_is_as_high_as_asked_and_fills_its_picture(shape, yaw):
    opacity = view(OF_EACH_SHAPE[shape], yaw, 120)[..., 3]
    assert abs(len(opacity) - 120) <= 1
    _, _, width, height = cv2.boundingRect(opacity)
    assert opacity.shape[1] - width <= 2
    assert len(opacity) - height <= 2


def test_siblings_differ_in_a_small_part_of_the_pack():
    first = DESIGNS[0]
    for design in DESIGNS[1:]:
        if design.brand != first.brand:
            first = design
            continue
        views = [view(one, 0.1, 120) for one in (first, design)]
        assert np.array_equal(views[0][..., 3], views[1][..., 3]), design.name
        assert 0.005 < changed(*views) < 0.35, design.name


def test_families_differ_in_most_of_the_pack():
    apart = (catalogue("pretraining")[number] for number in (0, 4))
    views = [view(design, 0.1, 120) for design in apart]
    views[1] = cv2.resize(views[1], views[0].shape[1::-1])
    assert changed(*views) > 0.5


def test_no_design_is_in_two_assortments():
    assert len({design.slug for design in DESIGNS}) == len(DESIGNS)
    for attribute in ("brand", "palette"):
        parts = [{getattr(design, attribute) for design in catalogue(n)} for n in assortments()]
        assert sum(map(len, parts)) == len(set().union(*parts))


def test_the_catalogue_has_the_sizes_that_were_asked_for():
    classes = {name: len(catalogue(name)) for name in SCENARIOS}
    assert classes == {"multi-packshot": 24, "one-shot": 24, "store": 10, "pretraining": 512}
    photos = {
        name: tuple(scenario.images_per_class().values()) for name, scenario in SCENARIOS.items()
    }
    assert photos == {
        "multi-packshot": (5, 2, 10),
        "one-shot": (1, 2, 10),
        "store": (2, 3, 20),
        "pretraining": (40, 4, 4),
    }


def test_every_design_can_be_drawn():
    missing = drawing.font("Sans", 40).getmask("\uffff").getbbox()
    for design in DESIGNS:
        assert {design.ground in GROUNDS, design.logo in LOGOS, design.shape in SHAPES} == {True}
        assert (design.number != "") == (design.difference == "grade")
        for char in design.picture + design.symbol:
            assert drawing.font("Sans", 40).getmask(char).getbbox() != missing, (design.name, char)


def test_a_missing_font_is_named_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(drawing.matplotlib, "get_data_path", lambda: tmp_path)
    with pytest.raises(DataError, match=r"DejaVuSans-Bold\.ttf.*matplotlib"):
        drawing.font.__wrapped__("Sans-Bold", 12)


def test_unknown_names_are_named_in_the_error(tmp_path):
    with pytest.raises(DataError, match=r"'warehouse'.*multi-packshot, one-shot, store"):
        load_scenario("warehouse", tmp_path)
    with pytest.raises(DataError, match=r"'warehouse'.*neighbours"):
        catalogue("warehouse")
    with pytest.raises(DataError, match="image_size 8"):
        write_scenario("store", tmp_path, image_size=8)
    with pytest.raises(DataError, match="workers 0"):
        write_scenario("store", tmp_path, workers=0)
    assert not list(tmp_path.iterdir())


def test_every_image_of_a_product_is_another_one_and_packshots_come_first():
    design = OF_EACH_SHAPE["can"]
    images = [render_image(TINY, design, split, i, SIZE) for split in SPLITS for i in range(3)]
    assert len({image.tobytes() for image in images}) == 9
    light = [image[:4, [0, 1, -2, -1], :3].min() > 205 for image in images]
    assert light == [True] + 8 * [False]
    assert [image.shape[2] for image in images] == [4] + 8 * [3]


def test_photos_on_disk_are_the_rendered_ones(tiny_folder):
    for design in catalogue("store")[::4]:
        for split, count in TINY.images_per_class().items():
            paths = sorted((tiny_folder / split / design.slug).iterdir())
            assert [path.name for path in paths] == [f"{index:03d}.png" for index in range(count)]
            for index, path in enumerate(paths):
                stored = np.asarray(Image.open(path))
                assert np.array_equal(stored, render_image(TINY, design, split, index, SIZE))


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(tiny_folder, tmp_path):
    assert contents(write_tiny(tmp_path / "other", workers=2)) == contents(tiny_folder)


def test_a_scenario_loads_as_a_dataset(tiny_folder):
    dataset = load_scenario("tiny", tiny_folder.parent, image_size=SIZE)
    assert dataset.name == "embedded/tiny"
    assert list(dataset.classes) == sorted(design.slug for design in catalogue("store"))
    assert dataset.train_repeats == 3
    sizes = (len(dataset.train), len(dataset.validation), len(dataset.test))
    assert sizes == (2 * TINY_CLASSES, TINY_CLASSES, 2 * TINY_CLASSES)
    for sample in dataset.train + dataset.validation + dataset.test:
        assert sample.path.parent.name == dataset.classes[sample.label]
    assert {sample.path.parent.parent.name for sample in dataset.test} == {"test"}
    assert dataset.notes == ()


def test_what_is_there_already_is_not_rendered_again(tiny_folder, monkeypatch):
    monkeypatch.setattr(scenarios, "render_image", None)  # calling it would fail
    assert write_tiny(tiny_folder.parent) == tiny_folder


@pytest.mark.parametrize("change", ["version", "size", "counts"])
def test_what_is_outdated_is_replaced(change, tiny_folder, monkeypatch):
    stale = tiny_folder / "stale.png"
    stale.touch()
    size = 32 if change == "size" else SIZE
    if change == "version":
        monkeypatch.setattr(scenarios, "GENERATOR_VERSION", scenarios.GENERATOR_VERSION + 1)
    if change == "counts":
        monkeypatch.setitem(SCENARIOS, "tiny", replace(TINY, test=1))
    write_tiny(tiny_folder.parent, size=size)
    assert not stale.exists()
    photo = next((tiny_folder / "test").rglob("*.png"))
    assert cv2.imread(str(photo)).shape == (size, size, 3)
    assert [path.name for path in tiny_folder.parent.iterdir()] == ["tiny"]


def test_the_manifest_says_what_is_there(tiny_folder):
    assert json.loads((tiny_folder / "manifest.json").read_text()) == {
        "generator_version": scenarios.GENERATOR_VERSION,
        "scenario": "tiny",
        "image_size": SIZE,
        "images_per_class": {"train": 2, "validation": 1, "test": 2},
        "classes": sorted(path.name for path in (tiny_folder / "test").iterdir()),
    }


def test_a_run_that_dies_leaves_no_data_set(tmp_path, monkeypatch):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(SCENARIOS, "tiny", TINY)
    monkeypatch.setattr(scenarios, "_move_into_place", die)
    with pytest.raises(KeyboardInterrupt):
        write_tiny(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_run_leaves_no_data_set_and_no_processes(tmp_path):
    script = (
        "from pathlib import Path; from experiments.data.generated.scenarios import write_scenario;"
        f"write_scenario('one-shot', Path({str(tmp_path)!r}), image_size=64, workers=2)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    while run.poll() is None and not list(tmp_path.rglob("*.png")):
        time.sleep(0.02)
    run.kill()
    run.communicate(timeout=60)  # the pipe ends when the last of the processes ends
    assert run.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    assert len(list(tmp_path.rglob("*.png"))) < 24 * 21


def test_half_written_folders_are_ignored_and_old_ones_removed(tmp_path, monkeypatch):
    recent, old = (tmp_path / f".tiny-{name}.partial" for name in ("recent", "old"))
    for partial in (recent, old):
        (partial / "tiny" / "train" / "volt-energy-mango").mkdir(parents=True)
    os.utime(old, (time.time() - 7200,) * 2)
    monkeypatch.setitem(SCENARIOS, "tiny", TINY)
    folder = write_tiny(tmp_path)
    assert len(list(folder.rglob("*.png"))) == 5 * TINY_CLASSES
    assert recent.exists()  # perhaps another process is writing it
    assert not old.exists()


def test_folders_of_others_are_left_alone(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "holiday.jpg").touch()
    monkeypatch.setitem(SCENARIOS, "tiny", TINY)
    with pytest.raises(DataError, match="something else"):
        write_tiny(tmp_path)
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["holiday.jpg"]


def test_the_faster_of_two_writers_wins(tiny_folder, tmp_path):
    before = contents(tiny_folder)
    late = tmp_path / ".tiny-late.partial" / "tiny"
    late.mkdir(parents=True)
    (late / "half").touch()
    scenarios._move_into_place(late, tiny_folder, scenarios._manifest("tiny", SIZE))
    assert contents(tiny_folder) == before


def test_a_contact_sheet_has_a_row_per_family_and_two_members_in_each(tiny_folder):
    sheet = draw_sheet(tiny_folder.parent, ("tiny",))
    assert sheet.size == (2 * (3 * SIZE + 8), 2 * (SIZE + SIZE // 6))
    photo = render_image(TINY, catalogue("store")[0], "test", 1, SIZE)
    shown = np.asarray(sheet)[SIZE // 6 : SIZE // 6 + SIZE, 2 * SIZE : 3 * SIZE]
    assert np.array_equal(shown, photo)
