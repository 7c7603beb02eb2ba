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

from experiments.data.dataset import DataError
from experiments.data.embedded import (
    SCENARIOS,
    SPLITS,
    Scenario,
    assortments,
    catalogue,
    contact_sheet,
    load_scenario,
    packshot,
    render_image,
    scenarios,
    store_photo,
    write_scenario,
)
from experiments.data.embedded.glyphs import GLYPHS
from experiments.data.embedded.render import Pose, render

SIZE = 48
TINY = Scenario("tiny", "store", 1, 1, 1, 2, train_repeats=3)
TINY_CLASSES = 10


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Scenario:
    monkeypatch.setitem(SCENARIOS, TINY.name, TINY)
    return TINY


@pytest.fixture
def tiny_folder(tiny: Scenario, tmp_path: Path) -> Path:
    return write_tiny(tmp_path)


def write_tiny(root: Path, workers: int = 1, size: int = SIZE) -> Path:
    return write_scenario("tiny", root, image_size=size, workers=workers, progress=False)


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def siblings() -> list[tuple[int, int]]:
    """Keys of each family's first member and of every other one."""
    pairs = []
    for name in assortments():
        first = catalogue(name)[0]
        for design in catalogue(name):
            if design.family != first.family:
                first = design
            elif design != first:
                pairs.append((first.key, design.key))
    return pairs


DESIGNS = {design.key: design for name in assortments() for design in catalogue(name)}
SHAPES = {design.family.shape: design for design in DESIGNS.values()}


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("photograph", [packshot, store_photo])
def test_photos_are_square_rgb_and_show_something(photograph, shape):
    photo = photograph(SHAPES[shape], rng(), SIZE)
    assert photo.shape == (SIZE, SIZE, 3)
    assert photo.dtype == np.uint8
    assert photo.std() > 15


@pytest.mark.parametrize("photograph", [packshot, store_photo])
def test_a_photo_depends_on_its_random_numbers_alone(photograph):
    design = SHAPES["jar"]
    first = photograph(design, np.random.default_rng(1), SIZE)
    other = photograph(design, np.random.default_rng(2), SIZE)
    again = photograph(design, np.random.default_rng(1), SIZE)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_packshots_stand_on_a_light_ground():
    for design in SHAPES.values():
        corners = packshot(design, rng(), SIZE)[:4, [0, 1, -2, -1]]
        assert corners.min() > 205


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_products_are_placed_and_sized_as_posed(shape):
    pose = Pose(yaw=0.3, pitch=0.15, roll=0.2, x=0.45, y=0.55, extent=0.8)
    left, top, right, bottom = render(SHAPES[shape], pose, 200).box()
    assert max(right - left, bottom - top) == pytest.approx(160, abs=5)
    assert (left + right) / 2 == pytest.approx(90, abs=3)
    assert (top + bottom) / 2 == pytest.approx(110, abs=3)


@pytest.mark.parametrize(("first", "other"), siblings())
def test_siblings_differ_in_a_small_part_of_the_pack(first, other):
    sprites = [render(DESIGNS[key], Pose(yaw=0.1), 160) for key in (first, other)]
    assert np.array_equal(sprites[0].mask, sprites[1].mask)
    change = np.abs(sprites[0].colour.astype(int) - sprites[1].colour).max(axis=2)
    fraction = (change > 25).sum() / (sprites[0].mask > 0).sum()
    assert 0.005 < fraction < 0.35


def test_families_differ_in_most_of_the_pack():
    milk, tea = (catalogue("one-shot")[number] for number in (0, 4))
    sprites = [render(design, Pose(), 160) for design in (milk, tea)]
    change = np.abs(sprites[0].colour.astype(int) - sprites[1].colour).max(axis=2)
    assert (change > 25).sum() / (sprites[0].mask > 0).sum() > 0.5


def test_no_design_is_in_two_assortments():
    designs = [design for name in assortments() for design in catalogue(name)]
    brands = {name: {d.family.brand for d in catalogue(name)} for name in assortments()}
    palettes = {name: {d.family.palette for d in catalogue(name)} for name in assortments()}
    assert len({design.key for design in designs}) == len(designs)
    assert len({design.slug for design in designs}) == len(designs)
    for parts in (brands, palettes):
        assert sum(len(part) for part in parts.values()) == len(set().union(*parts.values()))


def test_the_catalogue_has_the_sizes_that_were_asked_for():
    classes = {name: len(catalogue(name)) for name in SCENARIOS}
    assert classes == {"multi-packshot": 24, "one-shot": 24, "store": 10, "pretraining": 104}
    for design in DESIGNS.values():
        assert design.variant.glyph in GLYPHS
        assert (design.variant.number != "") == (design.family.difference == "grade")


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


def test_training_packshots_come_before_training_store_photos():
    design = SHAPES["can"]
    seed = (scenarios.GENERATOR_VERSION, design.key, SPLITS.index("train"))
    for index, photograph in enumerate((packshot, store_photo)):
        expected = photograph(design, np.random.default_rng([*seed, index]), SIZE)
        assert np.array_equal(render_image(TINY, design, "train", index, SIZE), expected)


def test_every_image_of_a_product_is_another_one():
    design = SHAPES["can"]
    images = {
        render_image(TINY, design, split, index, SIZE).tobytes()
        for split in SPLITS
        for index in range(3)
    }
    assert len(images) == 9


def test_photos_on_disk_are_the_rendered_ones(tiny, tiny_folder):
    for design in catalogue("store")[::4]:
        for split, count in tiny.images_per_class().items():
            paths = sorted((tiny_folder / split / design.slug).iterdir())
            assert [path.name for path in paths] == [f"{index:03d}.png" for index in range(count)]
            for index, path in enumerate(paths):
                stored = cv2.imread(str(path))[..., ::-1]
                assert np.array_equal(stored, render_image(tiny, design, split, index, SIZE))


def test_the_number_of_processes_changes_nothing(tiny, tiny_folder, tmp_path):
    assert contents(write_tiny(tmp_path / "other", workers=2)) == contents(tiny_folder)


def test_a_scenario_loads_as_a_dataset(tiny, tmp_path):
    dataset = load_scenario("tiny", tmp_path, image_size=SIZE, workers=1, progress=False)
    assert dataset.name == "embedded/tiny"
    assert list(dataset.classes) == sorted(design.slug for design in catalogue("store"))
    assert dataset.train_repeats == 3
    sizes = (len(dataset.train), len(dataset.validation), len(dataset.test))
    assert sizes == (2 * TINY_CLASSES, TINY_CLASSES, 2 * TINY_CLASSES)
    for sample in dataset.train + dataset.validation + dataset.test:
        assert sample.path.parent.name == dataset.classes[sample.label]
        assert sample.path.is_file()
    assert {sample.path.parent.parent.name for sample in dataset.test} == {"test"}


def test_what_is_there_already_is_not_rendered_again(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(scenarios, "render_image", None)  # calling it would fail
    assert write_tiny(tmp_path) == tiny_folder


@pytest.mark.parametrize("change", ["version", "size", "counts"])
def test_what_is_outdated_is_replaced(change, tiny_folder, tmp_path, monkeypatch):
    stale = tiny_folder / "stale.png"
    stale.touch()
    size = SIZE
    if change == "version":
        monkeypatch.setattr(scenarios, "GENERATOR_VERSION", scenarios.GENERATOR_VERSION + 1)
    if change == "size":
        size = 32
    if change == "counts":
        monkeypatch.setitem(SCENARIOS, "tiny", replace(TINY, test=1))
    before = contents(tiny_folder)
    write_tiny(tmp_path, size=size)
    after = contents(tiny_folder)
    assert not stale.exists()
    assert before["manifest.json"] != after["manifest.json"]
    photo = next((tiny_folder / "test").rglob("*.png"))
    assert cv2.imread(str(photo)).shape == (size, size, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_the_manifest_says_what_is_there(tiny_folder):
    manifest = json.loads((tiny_folder / "manifest.json").read_text())
    assert manifest["generator_version"] == scenarios.GENERATOR_VERSION
    assert manifest["image_size"] == SIZE
    assert manifest["images_per_class"] == {"train": 2, "validation": 1, "test": 2}
    assert manifest["classes"] == sorted(path.name for path in (tiny_folder / "test").iterdir())


def test_a_run_that_dies_leaves_no_data_set(tiny, tmp_path, monkeypatch):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scenarios, "_move_into_place", die)
    with pytest.raises(KeyboardInterrupt):
        write_tiny(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_no_data_set_and_no_processes(tmp_path):
    script = (
        "from pathlib import Path; from experiments.data.embedded import write_scenario;"
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


def test_half_written_folders_are_ignored_and_old_ones_removed(tiny, tmp_path):
    recent, old = (tmp_path / f".tiny-{name}.partial" for name in ("recent", "old"))
    for partial in (recent, old):
        (partial / "train" / "volt-energy-mango").mkdir(parents=True)
    os.utime(old, (time.time() - 7200,) * 2)
    folder = write_tiny(tmp_path)
    assert len(list(folder.rglob("*.png"))) == 5 * TINY_CLASSES
    assert recent.exists()  # perhaps another process is writing it
    assert not old.exists()


def test_folders_of_others_are_left_alone(tiny, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "holiday.jpg").touch()
    with pytest.raises(DataError, match="something else"):
        write_tiny(tmp_path)
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["holiday.jpg"]


def test_the_faster_of_two_writers_wins(tiny_folder, tmp_path):
    before = contents(tiny_folder)
    late = tmp_path / ".tiny-late.partial"
    late.mkdir()
    (late / "half").touch()
    scenarios._move_into_place(late, tiny_folder, scenarios._manifest(TINY, SIZE))
    assert contents(tiny_folder) == before


def test_a_contact_sheet_has_a_row_for_each_family():
    sheet = contact_sheet(("store",), families=1, photos=1, size=SIZE)
    both = contact_sheet(("store",), families=2, photos=1, size=SIZE)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] >= 4 * SIZE
    assert both.shape[0] == 2 * sheet.shape[0]
    assert np.array_equal(both[: len(sheet)], sheet)
