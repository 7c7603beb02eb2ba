"""A stratified holdout takes its share of every class, and the same one every time."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from experiments.data.dataset import DataError, Sample
from experiments.data.splits import stratified_holdout


def photos(*sizes: int) -> list[Sample]:
    return [
        Sample(Path(f"class{label}/{index:03}.jpg"), label)
        for label, size in enumerate(sizes)
        for index in range(size)
    ]


def held(sizes: tuple[int, ...], fraction: float, **options) -> list[int]:
    _, held_out = stratified_holdout(photos(*sizes), fraction, 0, **options)
    counts = Counter(sample.label for sample in held_out)
    return [counts[label] for label in range(len(sizes))]


def test_every_class_gives_its_share():
    assert held((100, 30, 10), 0.1) == [10, 3, 1]


def test_small_classes_give_the_minimum_but_keep_one():
    assert held((1, 2, 3, 5), 0.1) == [0, 1, 1, 1]
    assert held((1, 2, 3, 5), 0.1, minimum=3) == [0, 1, 2, 3]
    assert held((1, 2, 3), 0.99) == [0, 1, 2]


def test_nothing_is_lost_or_doubled():
    samples = photos(7, 12)
    rest, held_out = stratified_holdout(samples, 0.3, 0)
    assert sorted(rest + held_out, key=lambda sample: sample.path) == samples


def test_fraction_zero_holds_out_nothing():
    assert stratified_holdout(photos(3, 2), 0, 0) == (tuple(photos(3, 2)), ())


def test_the_order_of_the_input_does_not_matter():
    samples = photos(20, 30)
    shuffled = random.Random(0).sample(samples, len(samples))
    assert stratified_holdout(shuffled, 0.2, 5) == stratified_holdout(samples, 0.2, 5)


def test_the_seed_decides():
    draws = {stratified_holdout(photos(20, 30), 0.2, seed)[1] for seed in range(3)}
    assert len(draws) == 3


def test_classes_are_drawn_apart():
    alone, together = photos(20), photos(20, 30)
    of_class_0 = [sample for sample in stratified_holdout(together, 0.2, 0)[1] if not sample.label]
    assert tuple(of_class_0) == stratified_holdout(alone, 0.2, 0)[1]


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_fraction_outside_the_range_is_refused(fraction):
    with pytest.raises(DataError, match=rf"is {fraction}, expected .* pass for example 0\.1"):
        stratified_holdout(photos(3), fraction, 0)


def test_where_every_photo_is_a_copy_under_another_label_there_is_a_test_all_the_same():
    samples = [Sample(Path(f"{label}/{k}.jpg"), label) for label in range(3) for k in range(5)]
    copies = {sample.path: "the same" for sample in samples}
    rest, held_out = stratified_holdout(samples, 0.2, seed=0, copies=copies)
    assert (rest, held_out) == stratified_holdout(samples, 0.2, seed=0)
    assert len(held_out) == 3
