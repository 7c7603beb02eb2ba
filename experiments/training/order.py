"""Which training photos an epoch draws, and in which order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return the generator of one epoch's draws; neighbouring seeds share no epoch.

    Args:
        seed: seed of the run.
        epoch: number of the epoch, from 0.
    """
    return torch.Generator().manual_seed(epoch_seed(seed, epoch))


def epoch_seed(seed: int, epoch: int) -> int:
    """Return one number for a seed and an epoch."""
    return seed * 1_000_003 + epoch


def shuffled(count: int, generator: torch.Generator) -> list[int]:
    """Return 0..count-1 in random order."""
    return torch.randperm(count, generator=generator).tolist()


def balanced(labels: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    """Draw items of all classes equally often, in random order.

    A class's photos take turns: none is drawn again before all others of its class were. Where
    `count` is no multiple of the number of classes, random classes get one item more.

    Args:
        labels: class of each photo.
        count: number of items to draw.
        generator: generator that draws them.

    Returns:
        `count` item numbers: draw d of photo i, both from 0, is d * len(labels) + i.
    """
    members = _photos_by_class(labels)
    quota, left_over = divmod(count, len(members))
    lucky = set(shuffled(len(members), generator)[:left_over])
    items: list[int] = []
    for number, photos in enumerate(members):
        items += _in_turns(photos, quota + (number in lucky), len(labels), generator)
    return [items[position] for position in shuffled(len(items), generator)]


def most_draws(labels: Sequence[int], count: int) -> int:
    """Return how often `balanced` draws one photo at most, whatever its generator."""
    members = _photos_by_class(labels)
    quota = -(-count // len(members))
    return max(-(-quota // len(photos)) for photos in members)


def _in_turns(
    photos: Sequence[int], count: int, offset: int, generator: torch.Generator
) -> list[int]:
    items: list[int] = []
    for turn in range(-(-count // len(photos))):
        items += [turn * offset + photos[i] for i in shuffled(len(photos), generator)]
    return items[:count]


def _photos_by_class(labels: Sequence[int]) -> list[list[int]]:
    members = defaultdict(list)
    for photo, label in enumerate(labels):
        members[label].append(photo)
    return [members[label] for label in sorted(members)]
