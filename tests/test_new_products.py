"""Products that join a classifier: which maps are whose, and the table."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from experiments.data.dataset import Sample
from experiments.study import few_shot, new_products
from experiments.study.new_products import Maps, Options, joined, measure, to_markdown
from experiments.training.feature_maps import MapDataset

CLASSES, PER_CLASS, CHANNELS = 6, 4, 36


def maps(seed: int, views: int = 1) -> MapDataset:
    """Maps (views, n, 36, 3, 3) in which a class lights up channels of its own."""
    samples = tuple(Sample("x", label) for label in range(CLASSES) for _ in range(PER_CLASS))
    drawn = np.random.default_rng(seed).random((views, len(samples), CHANNELS, 3, 3))
    for number, sample in enumerate(samples):
        drawn[:, number, sample.label :: CLASSES] += 1
    return MapDataset(samples, drawn.astype(np.float16))


def test_some_classes_are_taken_and_numbered_anew():
    all_of_them = maps(0, views=2)
    two = all_of_them.of([4, 1], most=3)
    assert [sample.label for sample in two.samples] == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(two.maps[:, 0], all_of_them.maps[:, 4 * PER_CLASS])
    both = joined(two, maps(1).of([5], most=2))
    assert [sample.label for sample in both.samples] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert both.maps.shape[:2] == (1, 8)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gap", "lca"])
def test_products_join_and_are_recognised(monkeypatch, tmp_path, caplog, head):
    everything = Maps(maps(0), maps(1), maps(2, views=2), maps(3, views=2), maps(4), maps(5))
    monkeypatch.setattr(new_products, "load_maps", lambda *_: everything)
    options = Options(tmp_path, heads=(head,), seeds=(0,), new=2, epochs=60, device="cpu")
    rows = list(measure(options))
    assert [(row["from"], row["way"]) for row in rows] == [
        (name, way) for name in new_products.JOIN_FROM for way in ("enrolled", "trained anew")
    ]
    assert all(row["old"] > 0.5 and row["new"] > 0.5 for row in rows)
    share = (CLASSES - 2) / CLASSES
    for row in rows:
        assert row["all"] == pytest.approx(share * row["old"] + (1 - share) * row["new"])
    assert new_products.main(["--data-root", "x", "--new", "5", "--device", "cpu"]) == 2
    assert "--new is 5; expected 1 to 4 of the 6 products" in caplog.text
    assert to_markdown(rows).count("| enrolled") == 3
    assert torch.is_grad_enabled()


def test_more_photos_of_each_product_are_drawn_from_the_same_order(monkeypatch, tmp_path):
    everything = Maps(maps(0), maps(1), maps(2, views=2), maps(3, views=2), maps(4), maps(5))
    monkeypatch.setattr(few_shot, "load_maps", lambda *_: everything)
    options = ["--data-root", str(tmp_path), "--heads", "gap", "gap-fc", "--seeds", "0", "1"]
    options += ["--shots", "1", "0", "--epochs", "30", "--device", "cpu"]
    assert few_shot.main([*options, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    curves = few_shot.by_shots(rows)
    assert set(curves) == {("gap", "trained"), ("gap", "gallery"), ("gap-fc", "trained")}
    assert all(list(curve) == [1, 0] for curve in curves.values())
    assert all(min(curve[0]) > 50 for curve in curves.values())
    assert (tmp_path / "curves.png").stat().st_size > 10_000
