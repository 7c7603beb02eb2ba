"""What a product looks like: a family shares everything, its members differ in a few details."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from experiments.data.embedded.pen import Colour, rgb

Shape = Literal["carton", "brick", "box", "pouch", "can", "bottle", "jar", "cup"]
Difference = Literal["flavour", "badge", "grade", "stripe", "emblem"]


@dataclass(frozen=True)
class Palette:
    """The four colours of a family."""

    base: Colour
    second: Colour
    accent: Colour
    ink: Colour

    @classmethod
    def parse(cls, codes: str) -> Palette:
        """Reads four colour codes, e.g. "F3E9DA 2E6B57 E9A23B 1F3A33"."""
        base, second, accent, ink = (rgb(code) for code in codes.split())
        return cls(base, second, accent, ink)


@dataclass(frozen=True)
class Family:
    """Products that differ only in small local details.

    Attributes:
        brand: the name written largest.
        product: what is inside.
        shape: of the pack.
        palette: colours of the whole family.
        ground: pattern behind everything, a key of `label.GROUNDS`.
        picture: illustration every member carries, a key of `label.PICTURES`.
        logo: how the brand name is set, a key of `label.LOGOS`.
        plan: where the parts of the label go, an index of `label.PLANS`.
        difference: what tells the members apart. "flavour": badge, its colour and a coloured word
            strip; "badge": badge and word in the family's own colours; "grade": a number and a
            word; "stripe": a thin coloured stripe and a word; "emblem": the corner a seal sits in
            and a word.
        weight: the amount printed on every member.
    """

    brand: str
    product: str
    shape: Shape
    palette: Palette
    ground: str
    picture: str
    logo: str
    plan: int
    difference: Difference
    weight: str


@dataclass(frozen=True)
class Variant:
    """What is a member's own.

    Attributes:
        word: written on the pack, e.g. "vanilla".
        glyph: picture on the badge, a key of `glyphs.GLYPHS`.
        colour: of the badge's picture and of stripes.
        number: e.g. "3.2%"; empty where the family's members do not differ in one.
        place: position among the members, for details that move around.
    """

    word: str
    glyph: str
    colour: Colour
    number: str
    place: int


@dataclass(frozen=True)
class Design:
    """One product, that is one class.

    Attributes:
        family: what it shares with its siblings.
        variant: what is its own.
        key: a number no other product has, from which its random numbers are derived.
    """

    family: Family
    variant: Variant
    key: int

    @property
    def name(self) -> str:
        """Name for people, e.g. "Alba oat drink - vanilla"."""
        return f"{self.family.brand} {self.family.product} - {self.variant.word}"

    @property
    def slug(self) -> str:
        """Name for folders, e.g. "alba-oat-drink-vanilla"."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
