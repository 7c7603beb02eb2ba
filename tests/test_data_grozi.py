"""GroZi-120 is read in its own layout, and what is missing or odd in a copy is said."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data.augment import Augmentation, training_transform
from experiments.data.catalog import CATALOG, load_dataset
from experiments.data.dataset import DataError, DataNotGivenError, Sample
from experiments.data.grozi import load_grozi
from experiments.data.grozi_check import check_grozi
from experiments.data.grozi_files import read_names
from experiments.data.images import read_sample
from experiments.data.source import DataOptions
from experiments.data.torch_dataset import PhotoDataset
from experiments.data.video_split import NEIGHBOURS
from lca_fused.photos.reading import ImageError
from lca_fused.preprocessing import Preprocessing
from tests.grozi_tree import CROPS, NAMES, PRODUCTS, SHADES, SIGHTINGS, coordinates, write_grozi

CLASSES = tuple(f"{product} {NAMES[product]}" for product in PRODUCTS)
ABSENT = "4-81, 83-120"  # what a tree of four products lacks


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_grozi(tmp_path / "grozi-120")


def product_of(sample: Sample) -> int:
    """Read the product off the path: <part>/<product>/..."""
    parts = sample.path.parts
    part = next(k for k, name in enumerate(parts) if name in ("inVitro", "inSitu"))
    return int(parts[part + 1])


def moment(sample: Sample) -> tuple[int, int, int]:
    """Return product, video and frame of a crop."""
    number = int(sample.path.stem.removeprefix("video"))
    return (product_of(sample), *SIGHTINGS[product_of(sample)][number - 1])


def refusal(root: Path, protocol: str = "in-vitro", **options) -> str:
    with pytest.raises(DataError) as raised:
        load_grozi(root, protocol, **options)
    return str(raised.value)


def test_in_vitro_trains_on_packshots_and_tests_on_every_crop(folder):
    dataset = load_grozi(folder, "in-vitro")
    assert dataset.name == "grozi-120/in-vitro"
    assert dataset.classes == CLASSES
    assert Counter(s.label for s in dataset.train) == dict.fromkeys(range(4), 3)
    assert len(dataset.test) == len(set(dataset.test)) == CROPS
    assert not dataset.validation
    for sample in dataset.train + dataset.test:
        assert product_of(sample) == PRODUCTS[sample.label]
        expected = "inVitro" if sample in dataset.train else "inSitu"
        assert expected in sample.path.parts


def test_a_packshot_is_cut_out_as_far_as_its_files_allow(folder):
    png, masked, plain = sorted(
        (s for s in load_grozi(folder, "in-vitro").train if s.label == 0),
        key=lambda sample: sample.path.stem,
    )
    assert (png.path.name, png.mask) == ("web1.png", png.path)
    assert (masked.path.name, masked.mask.name) == ("web2.jpg", "mask2.png")
    assert (plain.path.name, plain.mask) == ("web3.jpg", None)
    for cutout in (png, masked):
        image = read_sample(cutout)
        assert (image.mode, image.size) == ("RGBA", (30, 20)), "trimmed to the product"
        assert np.abs(np.asarray(image)[..., :3].astype(int) - SHADES[1]).max() < 30
    assert (read_sample(plain).mode, read_sample(plain).size) == ("RGB", (60, 40))


def test_crops_come_in_the_order_of_their_numbers(folder):
    numbers = [int(s.path.stem[5:]) for s in load_grozi(folder, "in-vitro").test if s.label == 1]
    assert numbers == list(range(1, 21))


def test_packshots_can_be_held_out_and_then_are_no_cutouts(folder):
    dataset = load_grozi(folder, "in-vitro", validation_fraction=0.34)
    assert Counter(s.label for s in dataset.validation) == dict.fromkeys(range(4), 1)
    assert len(dataset.train) == 8
    assert not {s.path for s in dataset.train} & {s.path for s in dataset.validation}
    assert all(sample.mask is None for sample in dataset.validation)


def test_in_situ_never_parts_neighbouring_frames(folder):
    dataset = load_grozi(folder, "in-situ", validation_fraction=0.2)
    assert (dataset.name, dataset.classes) == ("grozi-120/in-situ", CLASSES)
    splits = [set(map(moment, s)) for s in (dataset.train, dataset.validation, dataset.test)]
    assert all(splits)
    for one in range(3):
        for other in range(one):
            for product, video, frame in splits[one]:
                near = [f for p, v, f in splits[other] if (p, v) == (product, video)]
                assert all(abs(frame - f) >= NEIGHBOURS for f in near)
    for sample in dataset.train + dataset.validation + dataset.test:
        assert product_of(sample) == PRODUCTS[sample.label]


def test_in_situ_tests_on_whole_videos_where_there_are_several(folder):
    test = {moment(sample)[:2] for sample in load_grozi(folder, "in-situ").test}
    train = {moment(sample)[:2] for sample in load_grozi(folder, "in-situ").train}
    assert {v for p, v in test if p == 1} == {9}, "4 of 16 crops: video 4 would be 12"
    assert {v for p, v in test if p == 82} == {9}, "3 of 11 crops: the nearest below 30 %"
    assert train & test == {(2, 7)}, "product 2 is in one video alone"


def test_in_situ_is_the_same_in_any_order_of_the_files(folder, monkeypatch):
    listed = os.listdir
    before = load_grozi(folder, "in-situ")
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listed(path), reverse=True))
    assert load_grozi(folder, "in-situ") == before


def test_the_doubled_lines_of_product_82_are_read_once(folder):
    file = folder / "inSitu" / "82" / "coordinates.txt"
    doubled = load_grozi(folder, "in-situ")
    assert f"{file} has all its lines twice; each is read once." in check_grozi(folder)
    file.write_text(coordinates(SIGHTINGS[82]))
    assert load_grozi(folder, "in-situ") == doubled
    assert not any("twice" in finding for finding in check_grozi(folder))


def test_a_tiny_dark_crop_goes_through_training_and_evaluation(folder):
    dataset = load_grozi(folder, "in-vitro")
    tiny = next(s for s in dataset.test if (product_of(s), s.path.stem) == (3, "video1"))
    assert Image.open(tiny.path).width == 11
    preprocessing = Preprocessing(image_size=64)
    strong = Augmentation(blur=1.0, perspective_probability=1.0)
    for transform in (training_transform(preprocessing, strong), preprocessing.transform()):
        image, label = PhotoDataset([tiny], transform, cache_side=96, workers=1)[0]
        assert image.shape == (3, 64, 64)
        assert image.isfinite().all()
        assert label == 2


def test_packshots_leave_their_white_behind_and_keep_their_product(folder):
    train = load_grozi(folder, "in-vitro").train
    plain = Preprocessing(image_size=20, crop=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    transform = plain.transform()
    items = PhotoDataset(train, transform, cache_side=20, workers=1)
    for (image, label), sample in zip(items, train, strict=True):
        shade = torch.tensor(SHADES[PRODUCTS[label]])[:, None, None] / 255
        if sample.mask is None:
            assert (image > 0.95).all(dim=0).float().mean() > 0.3
        else:
            middle = image[:, 6:-6, 6:-6]
            assert torch.allclose(middle, shade.expand_as(middle), atol=0.03)


@pytest.mark.parametrize("name", ["grozi-120", "GroZi-120"])
def test_the_folder_is_found_below_the_root(tmp_path, name):
    write_grozi(tmp_path / name)
    assert load_grozi(tmp_path, "in-situ").classes == CLASSES


@pytest.mark.parametrize("protocol", ["in-vitro", "in-situ"])
def test_the_catalog_reads_it_and_every_image_can_be_decoded(folder, protocol):
    options = DataOptions(root=folder.parent, cache=folder / "cache", image_size=32)
    name = f"grozi-120/{protocol}"
    assert load_dataset(name, options).classes == CLASSES
    assert CATALOG[name].paper_dataset == ("GroZi-120" if protocol == "in-vitro" else None)


def test_nothing_given_says_where_to_get_it(tmp_path):
    for root in (None, tmp_path):
        options = DataOptions(root=root, cache=tmp_path, image_size=32)
        with pytest.raises(DataNotGivenError, match=r"download grozi-120.*grozi\.calit2\.net"):
            load_dataset("grozi-120/in-vitro", options)
    (finding,) = check_grozi(tmp_path)
    assert str(tmp_path / "grozi-120") in finding


@pytest.mark.parametrize("part", ["inVitro", "inSitu"])
def test_half_of_it_is_named(folder, part):
    shutil.rmtree(folder / part)
    with pytest.raises(DataNotGivenError) as raised:
        load_grozi(folder, "in-vitro")
    assert str(raised.value).startswith(f"{folder / part} is missing; run `python -m")
    assert any(f.startswith(f"{folder / part} is missing") for f in check_grozi(folder))


def test_in_situ_needs_no_packshots(folder):
    before = load_grozi(folder, "in-situ")
    shutil.rmtree(folder / "inVitro")
    assert load_grozi(folder, "in-situ") == before


@pytest.mark.parametrize(
    ("part", "inside", "message"),
    [("inVitro", "web", "holds no packshot"), ("inSitu", "video", "holds no crop")],
)
def test_empty_folders_are_refused(folder, part, inside, message):
    for product in PRODUCTS:
        shutil.rmtree(folder / part / str(product) / inside)
    assert f"{folder / part} {message}; run" in refusal(folder)


def test_missing_products_are_left_out_with_a_warning(folder, caplog):
    shutil.rmtree(folder / "inVitro" / "2")
    shutil.rmtree(folder / "inSitu" / "3")
    with caplog.at_level(logging.WARNING):
        dataset = load_grozi(folder, "in-vitro")
    assert dataset.classes == ("1 Cheerios", "3 Snickers Bar", "82 Gum, Mint")
    assert Counter(s.label for s in dataset.test) == {0: 16, 2: 11}
    assert "GroZi-120: no packshots, left out: products 2, 4-81, 83-120" in caplog.text
    assert "GroZi-120: no crops to test on: products 3" in caplog.text
    findings = check_grozi(folder)
    assert f"{folder / 'inVitro'} has no folder of products 2, 4-81, 83-120." in findings
    assert f"{folder / 'inSitu'} has no folder of products 3-81, 83-120." in findings


def test_a_product_that_is_seen_for_a_moment_only_is_not_tested(folder, caplog):
    (folder / "inSitu" / "3" / "coordinates.txt").write_text(
        coordinates([(4, frame) for frame in (0, 5, 9, 12, 20)])
    )
    with caplog.at_level(logging.WARNING):
        dataset = load_grozi(folder, "in-situ")
    assert Counter(s.label for s in dataset.train)[2] == 5
    assert "no crops to test on: products 3" in caplog.text


def test_without_the_index_products_are_numbered(folder):
    (folder / "Index" / "UPC_index.txt").unlink()
    assert load_grozi(folder, "in-vitro").classes[0] == "product 1"
    assert any("UPC_index.txt is missing, so products are" in f for f in check_grozi(folder))


def test_the_index_may_name_some_on_one_line(tmp_path):
    file = tmp_path / "UPC_index.txt"
    file.write_bytes(
        "\ufeffproducts: 120\n\n1\n0 16000 27526\nCheerios\n2\t078000000123\t7 Up  \n"
        "\n3\n\n40000-00151\n\nSnickers\n121\n12345678\nbeyond\n".encode()
    )
    assert read_names(file) == {1: "Cheerios", 2: "7 Up", 3: "Snickers"}


@pytest.mark.parametrize("line", ["4\t10\t5\t6", "4\tten\t5\t6\t40\t30", "no coordinates"])
def test_a_malformed_line_is_named(folder, line):
    file = folder / "inSitu" / "1" / "coordinates.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], line, *lines[3:]]))
    start = f"{file}, line 3: expected video, frame, x, y, width and height"
    message = refusal(folder, "in-situ")
    assert message.startswith(start)
    assert repr(line) in message
    assert any(finding.startswith(start) for finding in check_grozi(folder))
    assert load_grozi(folder, "in-vitro").classes == CLASSES, "which needs no coordinates"


def test_missing_coordinates_are_named(folder):
    file = folder / "inSitu" / "2" / "coordinates.txt"
    file.unlink()
    assert refusal(folder, "in-situ").startswith(f"{file} is missing, it says which frame")
    assert any(finding.startswith(f"{file} is missing") for finding in check_grozi(folder))


def test_a_crop_without_a_line_is_named(folder):
    file = folder / "inSitu" / "2" / "coordinates.txt"
    file.write_text(coordinates(SIGHTINGS[2][:18]))
    message = refusal(folder, "in-situ")
    assert message.startswith(f"{file} has 18 lines, none for video19.png")
    assert "remove the 2 crops" in message
    assert any("has 18 lines and there are crops up to number 20" in f for f in check_grozi(folder))


def test_a_missing_crop_moves_no_other_crop_to_another_line(folder):
    (folder / "inSitu" / "2" / "video" / "video3.png").unlink()
    whole = {moment(s) for s in load_grozi(folder, "in-situ").test if s.label == 1}
    assert whole <= {(2, video, frame) for video, frame in SIGHTINGS[2]}
    assert any("lacks crops 3 of its 20" in finding for finding in check_grozi(folder))
    assert any("counts 20 video images, 19 are there" in f for f in check_grozi(folder))


def test_a_mask_of_another_size_is_named(folder):
    mask = folder / "inVitro" / "1" / "web" / "masks" / "mask2.png"
    Image.new("L", (10, 12), 255).save(mask)
    sample = next(s for s in load_grozi(folder, "in-vitro").train if s.mask == mask)
    with pytest.raises(ImageError, match=r"is 10 x 12 pixels, its photo 60 x 40; remove the mask"):
        read_sample(sample)
    assert any(f.startswith(f"{mask} is 10 x 12 pixels") for f in check_grozi(folder))


def test_check_of_the_tree_lists_its_oddities_and_nothing_else(folder):
    oddities = [
        f"UPC_index.txt does not name products {ABSENT}.",
        f"inVitro has no folder of products {ABSENT}.",
        "4 packshots have neither a PNG nor a mask",
        f"inSitu has no folder of products {ABSENT}.",
        "coordinates.txt has all its lines twice",
        f"{CROPS} crops are there, 11,194 were published.",
    ]
    findings = check_grozi(folder)
    assert len(findings) == len(oddities)
    for finding, oddity in zip(findings, oddities, strict=True):
        assert oddity in finding


def test_check_names_packshots_and_crops_that_are_gone_or_empty(folder):
    shutil.rmtree(folder / "inVitro" / "1" / "web")
    shutil.rmtree(folder / "inSitu" / "3" / "video")
    empty = folder / "inSitu" / "2" / "video" / "video4.png"
    empty.write_bytes(b"")
    findings = check_grozi(folder)
    assert "There is no packshot of products 1." in findings
    assert "There is no crop of products 3." in findings
    assert f"1 of {CROPS - 5} images are empty files, such as {empty}." in findings
    assert any("counts 3 web images, 0 are there" in finding for finding in findings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 0.0}, "test_fraction is 0.0, expected more than 0 and less than 1"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"validation_fraction": -0.1}, "validation_fraction is -0.1, expected 0 to below 1"),
    ],
)
def test_fractions_are_checked(folder, options, message):
    assert message in refusal(folder, "in-situ", **options)


def test_listing_decodes_nothing(folder, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    for protocol in ("in-vitro", "in-situ"):
        load_grozi(folder, protocol)
