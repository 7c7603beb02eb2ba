"""Splitting crops of videos so that no two of one moment are on both sides.

Neighbouring frames of a video show a product all but identically. A split at random would put such
pairs into training and test, and memory would pass for recognition.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from experiments.data.dataset import Sample

NEIGHBOURS = 30
"""Frames of one video that are closer than this count as one moment: a second at 30 a second."""


@dataclass(frozen=True)
class Crop:
    """A product, cut from a frame of a video.

    Attributes:
        sample: the photo and its product.
        video: number of the video.
        frame: number of the frame in the video.
    """

    sample: Sample
    video: int
    frame: int


Split = tuple[list[Crop], list[Crop]]
"""The rest, and what is held out."""


def hold_out_videos(crops: Iterable[Crop], fraction: float) -> Split:
    """Hold out whole videos of every product, and frames of a product that is in one video alone.

    Of a product's videos the largest ones that together stay within `fraction` of its crops are
    held out, but at least the smallest. A product seen in a single video is cut in time as
    `hold_out_frames` does.

    Args:
        crops: photos with their videos and frames, in any order: the split depends on those two
            only.
        fraction: share to hold out, in (0, 1).

    Returns:
        The rest and what is held out; of every product there is a crop in the rest.
    """
    rest: list[Crop] = []
    held_out: list[Crop] = []
    for product in _groups(crops, lambda crop: crop.sample.label):
        videos = _groups(product, lambda crop: crop.video)
        if len(videos) == 1:
            kept, held = _cut_in_time(videos[0], fraction)
        else:
            kept, held = _choose(videos, fraction * len(product))
        rest += kept
        held_out += held
    return rest, held_out


def hold_out_frames(crops: Iterable[Crop], fraction: float) -> Split:
    """Hold out the last frames of every product in every video.

    Crops less than `NEIGHBOURS` frames before the held-out ones are dropped, they are in neither
    part. Where a product is seen for a shorter time than that, all of it stays in the rest.

    Args:
        crops: photos with their videos and frames, in any order.
        fraction: share to hold out, in (0, 1), met as well as the gap allows.

    Returns:
        The rest and what is held out; of every product and video there is a crop in the rest.
    """
    rest: list[Crop] = []
    held_out: list[Crop] = []
    for scene in _groups(crops, lambda crop: (crop.sample.label, crop.video)):
        kept, held = _cut_in_time(scene, fraction)
        rest += kept
        held_out += held
    return rest, held_out


def _groups(crops: Iterable[Crop], key: Callable[[Crop], Hashable]) -> list[list[Crop]]:
    groups: dict[Hashable, list[Crop]] = defaultdict(list)
    for crop in crops:
        groups[key(crop)].append(crop)
    return list(groups.values())


def _choose(videos: Sequence[Sequence[Crop]], wanted: float) -> Split:
    """Split two videos or more, holding out `wanted` crops or, of whole videos, nearly so."""
    by_size = sorted(videos, key=lambda video: (-len(video), video[0].video))
    chosen: list[Sequence[Crop]] = []
    for video in by_size:
        if sum(map(len, chosen)) + len(video) <= wanted:
            chosen.append(video)
    chosen = chosen or [by_size[-1]]
    numbers = {video[0].video for video in chosen}
    everything = [crop for video in videos for crop in video]
    return (
        [crop for crop in everything if crop.video not in numbers],
        [crop for crop in everything if crop.video in numbers],
    )


def _cut_in_time(video: Sequence[Crop], fraction: float) -> Split:
    """Split the crops of one product in one video where the shares come out best."""
    ordered = sorted(video, key=lambda crop: crop.frame)
    frames = [crop.frame for crop in ordered]
    best, best_share = (len(frames), len(frames)), 0.0
    for start in range(1, len(frames)):
        if frames[start] == frames[start - 1]:
            continue
        end = bisect_right(frames, frames[start] - NEIGHBOURS)
        # What each part has of its share; a cut where the product was out of sight loses nothing.
        share = min(end / (1 - fraction), (len(frames) - start) / fraction)
        if share > best_share:
            best, best_share = (end, start), share
    end, start = best
    return ordered[:end], ordered[start:]
