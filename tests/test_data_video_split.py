"""Crops of one moment are never on both sides, whatever the videos look like."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from experiments.data.dataset import Sample
from experiments.data.video_split import NEIGHBOURS, Crop, hold_out_frames, hold_out_videos

SIGHTINGS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(0, 200)), min_size=1, max_size=60
)


def make(sightings: list[tuple[int, int, int]]) -> list[Crop]:
    """Make a crop of each (label, video, frame)."""
    return [
        Crop(Sample(Path(f"{number}.png"), label), video, frame)
        for number, (label, video, frame) in enumerate(sightings)
    ]


def times(crops: list[Crop]) -> dict[tuple[int, int], list[int]]:
    found = defaultdict(list)
    for crop in crops:
        found[crop.sample.label, crop.video].append(crop.frame)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("hold_out", [hold_out_videos, hold_out_frames])
@given(sightings=SIGHTINGS, fraction=st.sampled_from([0.1, 0.3, 0.5]))
def test_the_parts_are_a_moment_apart_and_every_product_stays(hold_out, sightings, fraction):
    crops = make(sightings)
    rest, held_out = hold_out(crops, fraction)
    assert len(set(rest) | set(held_out)) == len(rest) + len(held_out) <= len(crops)
    assert {c.sample.label for c in rest} == {c.sample.label for c in crops}
    held = times(held_out)
    for scene, frames in times(rest).items():
        assert all(abs(a - b) >= NEIGHBOURS for a in frames for b in held.get(scene, []))


@given(sightings=SIGHTINGS, fraction=st.sampled_from([0.1, 0.3, 0.5]))
def test_a_product_in_several_videos_is_split_between_them(sightings, fraction):
    crops = make(sightings)
    rest, held_out = hold_out_videos(crops, fraction)
    videos = defaultdict(set)
    for crop in crops:
        videos[crop.sample.label].add(crop.video)
    for label in (label for label, seen in videos.items() if len(seen) > 1):
        parts = [{c.video for c in part if c.sample.label == label} for part in (rest, held_out)]
        assert all(parts)
        assert not parts[0] & parts[1]
        kept = [c for c in (*rest, *held_out) if c.sample.label == label]
        assert len(kept) == sum(c.sample.label == label for c in crops), "none is dropped"


def test_the_order_of_the_crops_does_not_matter():
    crops = make([(0, video, 7 * k) for video in (1, 2, 3) for k in range(10)])
    for hold_out in (hold_out_videos, hold_out_frames):
        first, second = hold_out(crops, 0.3), hold_out(crops[::-1], 0.3)
        assert [set(part) for part in first] == [set(part) for part in second]


def test_whole_videos_come_near_the_fraction():
    sizes = {1: 50, 2: 30, 3: 15, 4: 5}
    crops = make([(0, video, k) for video, count in sizes.items() for k in range(count)])
    assert Counter(c.video for c in hold_out_videos(crops, 0.5)[1]) == {1: 50}
    assert Counter(c.video for c in hold_out_videos(crops, 0.2)[1]) == {3: 15, 4: 5}
    assert Counter(c.video for c in hold_out_videos(crops, 0.01)[1]) == {4: 5}, "the smallest"


def test_a_cut_where_the_product_was_out_of_sight_drops_nothing():
    before = [(0, 1, k) for k in range(70)]
    after = [(0, 1, 500 + k) for k in range(30)]
    rest, held_out = hold_out_frames(make(before + after), 0.3)
    assert (len(rest), len(held_out)) == (70, 30)


def test_a_cut_in_the_middle_of_a_scene_drops_the_moment_between():
    rest, held_out = hold_out_frames(make([(0, 1, k) for k in range(200)]), 0.5)
    assert len(held_out) == len(rest) + 1 == 86  # of 200 - 29 crops
    assert min(c.frame for c in held_out) - max(c.frame for c in rest) == NEIGHBOURS


def test_a_scene_of_a_moment_stays_whole():
    crops = make([(0, 1, k) for k in range(NEIGHBOURS)])
    assert hold_out_frames(crops, 0.3) == (crops, [])
