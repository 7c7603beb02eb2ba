from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.data.dataset import Sample
from experiments.training.batches import Batches, cut
from experiments.training.feature_maps import MapDataset
from experiments.training.order import balanced, epoch_generator, most_draws, shuffled
from experiments.training.recipe import Recipe


@pytest.mark.parametrize("count", [1, 5, 24, 25, 31])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_parts_of_all_processes_make_up_the_same_steps(count, size, accumulate):
    order = shuffled(count, epoch_generator(0, 0))
    processes = [cut(order, 8, accumulate=accumulate, rank=rank, size=size) for rank in range(size)]
    assert len({len(parts) for parts in processes}) == 1, "all of them have as many parts"
    steps, step, parts = [], [], []
    for together in zip(*processes, strict=True):
        assert len({part.last for part in together}) == 1
        assert len({part.step_photos for part in together}) == 1
        assert all(part.items for part in together), "a process always has photos to compute"
        step += [item for part in together for item in part.items[: part.photos]]
        parts += together
        if together[0].last:
            assert len(step) == together[0].step_photos
            assert {part.largest for part in parts} == {max(part.photos for part in parts)}
            steps.append(sorted(step))
            step, parts = [], []
    assert steps == [sorted(order[start : start + 8]) for start in range(0, count, 8)]


def test_parts_are_even():
    sizes = [part.photos for part in cut(range(30), 30, accumulate=4)]
    assert sizes == [8, 8, 7, 7]


def test_one_process_computes_nothing_for_nothing():
    assert [part.photos for part in cut(range(10), 8, accumulate=4)] == [2, 2, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("count", "at_once", "accumulate"), [(8, 2, 4), (7, 3, 3), (8, 7, 2), (5, 5, 1)]
)
def test_smaller_parts_are_those_of_more_accumulation(count, at_once, accumulate):
    (whole,) = cut(range(count), count)
    places, found = zip(*whole.smaller(at_once), strict=True)
    expected = cut(range(count), count, accumulate=accumulate)
    assert [*found] == [replace(part, largest=whole.largest) for part in expected]
    assert [whole.items[place] for place in places] == [part.items for part in found]
    stand_in = replace(whole, photos=0)
    assert [part.photos for _, part in stand_in.smaller(at_once)] == [0] * accumulate


LABELS = [0] * 10 + [5] * 3 + [2]


def test_balanced_draws_take_turns_within_each_class():
    count = 31
    items = balanced(LABELS, count, epoch_generator(0, 0))
    assert len(items) == count == len(set(items)), "each draw has a number, and augmentation"
    photos = Counter(item % len(LABELS) for item in items)
    classes = Counter(LABELS[item % len(LABELS)] for item in items)
    assert sorted(classes.values()) == [10, 10, 11]
    for label in classes:
        draws = [photos[photo] for photo, its in enumerate(LABELS) if its == label]
        assert max(draws) - min(draws) <= 1


def test_balanced_draws_depend_on_seed_and_epoch_alone():
    def draw(seed, epoch):
        return balanced(LABELS, 30, epoch_generator(seed, epoch))

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2) != draw(1, 3)
    assert draw(1, 2) != draw(2, 2)


@pytest.mark.parametrize("count", [1, 3, 14, 31, 100])
def test_no_photo_is_drawn_more_often_than_foretold(count):
    most = most_draws(LABELS, count)
    for seed in range(5):
        items = balanced(LABELS, count, epoch_generator(seed, 0))
        assert max(items) // len(LABELS) < most


@pytest.mark.parametrize("views", [2, 4])
def test_where_classes_are_balanced_photos_of_large_ones_take_all_their_views_too(views):
    samples = tuple(Sample("x", label) for label in [0] * 4 + [1] * 8 + [2] * 9)  # 7 of each
    shown = np.arange(views, dtype=np.float16)[:, None, None, None, None]
    maps = MapDataset(samples, np.repeat(shown, len(samples), axis=1))
    batches = Batches(maps, Recipe(balanced=True), 0)
    drawn = Counter(
        (label, view)
        for epoch in range(12)
        for _, images, labels in batches.epoch(epoch)
        for label, view in zip(labels.tolist(), images.flatten().tolist(), strict=True)
    )
    for label in range(3):
        of_views = [drawn[label, view] for view in range(views)]
        assert max(of_views) < 1.6 * min(of_views), label


def test_order_is_random():
    orders = {tuple(shuffled(20, torch.Generator().manual_seed(seed))) for seed in range(5)}
    assert len(orders) == 5
    assert all(sorted(order) == list(range(20)) for order in orders)
