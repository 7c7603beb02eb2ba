"""The Grocery Store Dataset is read in its own layout, on a small tree in exactly that format."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from experiments.data.dataset import DataError
from experiments.data.grocery_store import GROCERY_STORE, load_grocery_store
from experiments.data.source import DataOptions

HEADER = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),"
    "Iconic Image Path (str),Product Description Path (str)"
)
# Fine id, coarse id, folder, and the photos in train, val and test.
CLASSES = [
    (0, 0, "Fruit/Apple/Pink-Lady", (6, 1, 3)),
    (28, 19, "Packages/Juice/Apple-Juice", (8, 2, 4)),
    (29, 19, "Packages/Juice/Orange-Juice", (10, 0, 3)),
    (38, 20, "Packages/Milk/Whole-Milk", (5, 1, 2)),
    (48, 24, "Packages/Sour-Milk/Sour-Milk", (7, 0, 5)),
]
NAMES = ("Apple-Juice", "Orange-Juice", "Whole-Milk", "Sour-Milk")


def touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def make(folder: Path) -> Path:
    rows = [HEADER]
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for fine, coarse, place, counts in CLASSES:
        _, coarse_name, name = place.split("/")
        iconic = f"/iconic-images-and-descriptions/{place}/{name}"
        rows.append(
            f"{name},{fine},{coarse_name},{coarse},{iconic}_Iconic.jpg,{iconic}_Description.txt"
        )
        touch(folder / f"{iconic}_Iconic.jpg"[1:])
        for split, count in zip(lists, counts, strict=True):
            photos = [f"{split}/{place}/{name}_{index:03}.jpg" for index in range(1, count + 1)]
            lists[split] += [f"{photo}, {fine}, {coarse}" for photo in photos]
            for photo in photos:
                touch(folder / photo)
    (folder / "classes.csv").write_text("\n".join(rows))
    for split, lines in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return make(tmp_path / "dataset")


def refusal(root: Path, protocol: str = "many-shot", **options) -> str:
    with pytest.raises(DataError) as raised:
        load_grocery_store(root, protocol, **options)
    return str(raised.value)


def edit(file: Path, number: int, line: str) -> None:
    lines = file.read_text().splitlines()
    lines[number - 1] = line
    file.write_text("\n".join(lines))


def test_many_shot_trains_on_the_pool(folder):
    dataset = load_grocery_store(folder, "many-shot", validation_fraction=0.2)
    assert dataset.name == "grocery-store/many-shot"
    assert dataset.classes == NAMES
    assert Counter(sample.label for sample in dataset.validation) == {0: 2, 1: 2, 2: 1, 3: 1}
    assert Counter(sample.label for sample in dataset.train) == {0: 8, 1: 8, 2: 5, 3: 6}
    assert Counter(sample.label for sample in dataset.test) == {0: 4, 1: 3, 2: 2, 3: 5}
    assert not set(dataset.train) & set(dataset.validation)
    assert dataset.train_repeats == 1
    for sample in dataset.train + dataset.validation + dataset.test:
        assert sample.path.parent.name == NAMES[sample.label]
        assert sample.path.is_file()


def test_one_shot_trains_on_the_packshots(folder):
    many = load_grocery_store(folder, "many-shot", seed=3)
    one = load_grocery_store(folder, "one-shot", seed=3)
    assert one.name == "grocery-store/one-shot"
    assert [sample.path.name for sample in one.train] == [f"{name}_Iconic.jpg" for name in NAMES]
    assert [sample.label for sample in one.train] == [0, 1, 2, 3]
    assert one.train_repeats == 12
    assert (one.classes, one.validation, one.test) == (many.classes, many.validation, many.test)


def test_coarse_labels_merge_the_fine_classes(folder):
    dataset = load_grocery_store(folder, "one-shot", labels="coarse")
    assert dataset.name == "grocery-store-coarse/one-shot"
    assert dataset.classes == ("Juice", "Milk", "Sour-Milk")
    assert [sample.label for sample in dataset.train] == [0, 0, 1, 2]
    assert Counter(sample.label for sample in dataset.test) == {0: 7, 1: 2, 2: 5}


def test_part_chooses_the_photos(folder):
    everything = load_grocery_store(folder, "many-shot", part=None)
    assert everything.name == "grocery-store-all/many-shot"
    assert everything.classes == ("Pink-Lady", *NAMES)
    assert load_grocery_store(folder, "many-shot", part="Fruit").classes == ("Pink-Lady",)


def test_files_of_other_parts_need_not_be_there(folder):
    for photo in folder.glob("*/Fruit/**/*.jpg"):
        photo.unlink()
    assert load_grocery_store(folder, "one-shot").classes == NAMES


@pytest.mark.parametrize(
    "place", ["dataset", "grocery_store/dataset", "GroceryStoreDataset/dataset"]
)
def test_the_folder_is_found_below_the_root(tmp_path, place):
    make(tmp_path / place)
    assert load_grocery_store(tmp_path, "many-shot").classes == NAMES


def test_missing_root(tmp_path):
    message = refusal(tmp_path / "nowhere")
    assert "nowhere does not exist: looked for" in message
    assert "github.com/marcusklasson/GroceryStoreDataset" in message


def test_another_layout(tmp_path):
    message = refusal(tmp_path)
    assert f"{tmp_path} is not the Grocery Store Dataset" in message
    assert str(tmp_path / "grocery_store" / "dataset" / "classes.csv") in message
    assert "github.com/marcusklasson/GroceryStoreDataset" in message


def test_missing_lists(folder):
    (folder / "val.txt").unlink()
    (folder / "test.txt").unlink()
    assert "missing val.txt, test.txt. Get it anew" in refusal(folder)


@pytest.mark.parametrize(
    "line", ["train/Packages/a.jpg", "train/Packages/a.jpg, 28", "a.jpg, one, two"]
)
def test_malformed_line_of_a_list(folder, line):
    edit(folder / "train.txt", 3, line)
    message = refusal(folder)
    assert f"{folder / 'train.txt'}, line 3: expected 'path, class id, coarse class id'" in message
    assert repr(line) in message


@pytest.mark.parametrize("line", ["Pink-Lady,0", "Pink-Lady,zero,Apple,0,/a.jpg,/a.txt"])
def test_malformed_line_of_the_classes(folder, line):
    edit(folder / "classes.csv", 2, line)
    assert f"{folder / 'classes.csv'}, line 2: expected 'class name, class id" in refusal(folder)


def test_missing_photos_are_counted(folder):
    for photo in sorted(folder.glob("train/Packages/Juice/*/*.jpg"))[:7]:
        photo.unlink()
    message = refusal(folder)
    assert message.startswith("7 of 33 photos listed in train.txt and val.txt do not exist")
    assert message.count(".jpg") == 5
    assert "Apple-Juice_001.jpg" in message


@pytest.mark.parametrize("ids", ["99, 19", "28, 99"])
def test_unknown_class_id(folder, ids):
    edit(folder / "test.txt", 5, f"test/Packages/Juice/Apple-Juice/Apple-Juice_001.jpg, {ids}")
    message = refusal(folder)
    assert f"{folder / 'test.txt'}, line 5: class id" in message
    assert f"is not in {folder / 'classes.csv'}" in message


def test_missing_packshot(folder):
    (packshot,) = folder.glob("iconic*/Packages/Milk/*/*_Iconic.jpg")
    packshot.unlink()
    message = refusal(folder, "one-shot")
    assert message.startswith("1 of 4 packshots named in classes.csv do not exist")
    assert str(packshot) in message
    assert load_grocery_store(folder, "many-shot").classes == NAMES


def test_a_part_without_photos(folder):
    message = refusal(folder, part="packages")
    assert 'no photos of the part "packages" in train.txt and val.txt' in message
    assert "Packages, Fruit and Vegetables" in message


def test_each_name_of_the_catalog_is_that_of_its_data_set(folder):
    options = DataOptions(root=folder, cache=folder, image_size=224)
    loaded = {name: entry.load(options) for name, entry in GROCERY_STORE.datasets.items()}
    assert [dataset.name for dataset in loaded.values()] == list(loaded)
    assert len(loaded["grocery-store-all-coarse/many-shot"].classes) == 4


@pytest.mark.data
@pytest.mark.parametrize(("labels", "classes"), [("fine", 31), ("coarse", 9)])
def test_the_real_packages(data_root, labels, classes):
    many = load_grocery_store(data_root, "many-shot", labels=labels)
    one = load_grocery_store(data_root, "one-shot", labels=labels)
    assert len(many.classes) == classes
    assert len(many.train) + len(many.validation) == 964
    assert len(many.test) == 781
    assert {sample.label for sample in many.validation} == set(range(classes))
    assert len(one.train) == 31
    assert (one.validation, one.test) == (many.validation, many.test)
