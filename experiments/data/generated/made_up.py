"""Families drawn by lot, as many as a backbone needs to learn from, as rows of `families.csv`."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

Rng = np.random.Generator
Row = dict[str, str]
T = TypeVar("T")

_MEMBERS = 4
_ONSETS = ("b", "br", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u", "ei", "au")
_CODAS = ("", "l", "n", "r", "s", "x")
_LOOKS = ("ground", "picture", "logo", "plan")
_DIFFERENCES = ("flavour", "badge", "stripe", "emblem", "grade")

# Least and greatest saturation and value of a palette's base.
_BASES = (((0.03, 0.3), (0.9, 1.0)), ((0.55, 0.95), (0.6, 0.95)), ((0.4, 0.8), (0.12, 0.4)))


def made_up_families(templates: Sequence[Row], words: Sequence[str], number: int) -> Iterator[Row]:
    """Yield rows of `families.csv`: product, weight and shape of a template, its looks by lot.

    The same arguments give the same families.

    Args:
        templates: rows that pass on what they have; every look from another one.
        words: what members that differ in no grade are called.
        number: how many families.
    """
    rng = np.random.default_rng(number)
    grades = [row["members"] for row in templates if row["difference"] == "grade"]
    brands = {row["brand"] for row in templates}
    for _ in range(number):
        brand = _brand(rng, brands)
        brands.add(brand)
        difference = _one(rng, _DIFFERENCES)
        members = ";".join(rng.choice(words, _MEMBERS, replace=False))
        looks = {look: _one(rng, templates)[look] for look in _LOOKS}
        yield (
            _one(rng, templates)
            | looks
            | {
                "brand": brand,
                "palette": _palette(rng),
                "difference": difference,
                "members": _one(rng, grades) if difference == "grade" else members,
            }
        )


def _one(rng: Rng, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def _brand(rng: Rng, taken: set[str]) -> str:
    """Return two syllables or three that are nobody's name yet."""
    while True:
        syllables = [_one(rng, _ONSETS) + _one(rng, _VOWELS) for _ in range(rng.integers(2, 4))]
        name = ("".join(syllables) + _one(rng, _CODAS)).capitalize()
        if name not in taken:
            return name


def _palette(rng: Rng) -> str:
    """Return colour codes: a base, a second and an accent of other hues or values, and an ink."""
    (low_s, high_s), (low_v, high_v) = _one(rng, _BASES)
    hue, saturation, value = rng.random(), rng.uniform(low_s, high_s), rng.uniform(low_v, high_v)
    second = hue + _one(rng, (0.0, 0.08, 0.33, 0.5)), rng.uniform(0.4, 0.9), 1.15 - 0.75 * value
    accent = rng.random(), rng.uniform(0.3, 0.95), rng.uniform(0.75, 1.0)
    ink = hue, 0.6, (0.25 if value > 0.55 else 0.98)
    colours = ((hue, saturation, value), second, accent, ink)
    return " ".join(_code(*colour) for colour in colours)


def _code(hue: float, saturation: float, value: float) -> str:
    channels = colorsys.hsv_to_rgb(hue % 1, saturation, min(1.0, value))
    return "".join(f"{round(255 * channel):02X}" for channel in channels)
