"""Every product there is: the families of each scenario, of pretraining and of the background.

`families.csv` has a row per family and names its members ("word" or "word number"); `flavours.csv`
gives the picture and the colour that go with a word.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import cast

from experiments.data.dataset import DataError
from experiments.data.embedded.design import Design, Difference, Family, Palette, Shape, Variant
from experiments.data.embedded.pen import Colour, rgb

NEIGHBOURS = "neighbours"  # products that only ever stand beside the one photographed

# Room in the numbering, so that a new member renumbers no other family and a new family no other
# assortment.
_KEYS_PER_FAMILY = 16
_KEYS_PER_ASSORTMENT = 1024


def assortments() -> tuple[str, ...]:
    """Names of all sets of products; no product, brand or palette is in two of them."""
    return tuple(dict.fromkeys(row["assortment"] for row in _table("families.csv")))


@cache
def catalogue(assortment: str) -> tuple[Design, ...]:
    """The products of one assortment, family after family.

    Raises:
        DataError: `assortment` is none of `assortments`.
    """
    if assortment not in assortments():
        known = ", ".join(assortments())
        raise DataError(f"unknown assortment {assortment!r}; there are: {known}")
    first_key = _KEYS_PER_ASSORTMENT * assortments().index(assortment)
    rows = [row for row in _table("families.csv") if row["assortment"] == assortment]
    return tuple(
        Design(
            family=_family(row), variant=variant, key=first_key + _KEYS_PER_FAMILY * number + place
        )
        for number, row in enumerate(rows)
        for place, variant in enumerate(_variants(row["members"]))
    )


def _family(row: dict[str, str]) -> Family:
    return Family(
        brand=row["brand"],
        product=row["product"],
        weight=row["weight"],
        shape=cast(Shape, row["shape"]),
        palette=Palette.parse(row["palette"]),
        ground=row["ground"],
        picture=row["picture"],
        logo=row["logo"],
        plan=int(row["plan"]),
        difference=cast(Difference, row["difference"]),
    )


def _variants(members: str) -> list[Variant]:
    variants = []
    for place, member in enumerate(members.split(";")):
        word, _, number = member.partition(" ")
        glyph, colour = _flavours().get(word, ("star", (120, 120, 120)))
        variants.append(Variant(word, glyph, colour, number, place))
    return variants


@cache
def _flavours() -> dict[str, tuple[str, Colour]]:
    return {row["word"]: (row["glyph"], rgb(row["colour"])) for row in _table("flavours.csv")}


@cache
def _table(file: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / file).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
