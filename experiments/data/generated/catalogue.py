"""Every product there is: the families of each scenario, of pretraining and of the background.

`families.csv` has a row per family and names its members ("word" or "word number"); `flavours.csv`
gives the symbol and the colour that go with a word. A symbol is a character of DejaVu Sans in that
colour; a second character is a small green one on top, as a leaf on an apple.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from experiments.data.dataset import DataError
from experiments.data.generated.drawing import BLACK, WHITE, Colour, rgb
from experiments.data.generated.made_up import made_up_families

NEIGHBOURS = "neighbours"
"""The products that only ever stand beside the one photographed."""

PRETRAINING = "pretraining"
"""The products that the small backbone has learnt from: families of the table, and made-up ones."""

_MADE_UP = 102  # families


@dataclass(frozen=True)
class Design:
    """One product, that is one class; its family shares all but the last five attributes.

    Attributes:
        brand: name written largest, which no other family has.
        product: name of what is inside.
        weight: amount printed on the pack.
        shape: key of `pack.SHAPES`.
        palette: base, second, accent and ink, the colours of the whole family.
        ground: pattern behind everything, a key of `label.GROUNDS`.
        picture: character drawn large on the label.
        logo: look of the brand name, a key of `label.LOGOS`.
        plan: number of the arrangement of the label, in 0..3.
        difference: what tells the members apart beside the word. "flavour": badge, its colour and
            that of the word's strip; "badge": badge in the family's own colours; "grade": number;
            "stripe": a thin coloured stripe; "emblem": the corner a seal sits in.
        word: word written on this member, e.g. "vanilla".
        number: number on the badge, e.g. "3.2%"; "" where the members do not differ in one.
        symbol: one or two characters on the badge.
        colour: colour of the symbol and of stripes.
        place: position among the members, for details that move around.
    """

    brand: str
    product: str
    weight: str
    shape: str
    palette: tuple[Colour, Colour, Colour, Colour]
    ground: str
    picture: str
    logo: str
    plan: int
    difference: str
    word: str
    number: str
    symbol: str
    colour: Colour
    place: int

    @property
    def name(self) -> str:
        """Name for people, e.g. "Alba oat drink - vanilla"."""
        return f"{self.brand} {self.product} - {self.word}"

    @property
    def slug(self) -> str:
        """Name for folders, which no other product has, e.g. "alba-oat-drink-vanilla"."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())

    @property
    def inks(self) -> tuple[Colour, ...]:
        """Colours that words are written in, the best one first."""
        base, second, _, ink = self.palette
        return ink, base, second, WHITE, BLACK


def assortments() -> tuple[str, ...]:
    """Return the names of all sets of products; no product, brand or palette is in two of them."""
    return tuple(dict.fromkeys(row["assortment"] for row in _table("families.csv")))


@cache
def catalogue(assortment: str) -> tuple[Design, ...]:
    """Return the products of one assortment, family after family.

    Raises:
        DataError: `assortment` is none of `assortments`.
    """
    if assortment not in assortments():
        known = ", ".join(assortments())
        raise DataError(f"unknown assortment {assortment!r}; there are: {known}")
    rows = [row for row in _table("families.csv") if row["assortment"] == assortment]
    if assortment == PRETRAINING:
        words = [flavour["word"] for flavour in _table("flavours.csv")]
        rows += made_up_families(rows, words, _MADE_UP)
    return tuple(design for row in rows for design in _members(row))


def _members(row: dict[str, str]) -> Iterator[Design]:
    flavours = {flavour["word"]: flavour for flavour in _table("flavours.csv")}
    texts = ("brand", "product", "weight", "shape", "ground", "picture", "logo", "difference")
    base, second, accent, ink = map(rgb, row["palette"].split())
    for place, member in enumerate(row["members"].split(";")):
        word, _, number = member.partition(" ")
        flavour = flavours.get(word, {"symbol": "★", "colour": "787878"})
        yield Design(
            **{key: row[key] for key in texts},
            palette=(base, second, accent, ink),
            plan=int(row["plan"]),
            word=word,
            number=number,
            symbol=flavour["symbol"],
            colour=rgb(flavour["colour"]),
            place=place,
        )


@cache
def _table(file: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / file).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
