"""Text in pictures whose script matplotlib's own font lacks: another font, or a note."""

from __future__ import annotations

import logging
import unicodedata
from dataclasses import dataclass
from functools import cache

import matplotlib
from matplotlib.font_manager import FontProperties, fontManager, get_font

logger = logging.getLogger(__name__)

_STAND_IN = "?"
_LAST_RESORT = "Last Resort"  # comes with matplotlib and has a box for every character
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH")
_IGNORABLE = ("Cf", "Mn")  # joiners and marks: without a glyph they are left out

# What this process found: families that had what the default lacks, scripts that none had, and
# those that a note was written on.
_helpful: list[str] = []
_without_font: set[str] = set()
_noted: set[str] = set()


@dataclass(frozen=True)
class Drawable:
    """Text that can be drawn.

    Attributes:
        text: the text, with stand-ins for characters that no installed font has.
        families: the families of the fonts that have the others, for `fontfamily`.
        complete: whether no character had to be replaced.
    """

    text: str
    families: list[str]
    complete: bool


def drawable(text: str) -> Drawable:
    """Return what of a text can be drawn, and with which fonts.

    Characters that matplotlib's font lacks are drawn in an installed font that has them. Those
    that none has are replaced, and a note, once for each script, says which font to install.
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    families = list(matplotlib.rcParams["font.family"])
    missing = [c for c in dict.fromkeys(text) if not any(_has(family, c) for family in families)]
    replaced: dict[str, str] = {}
    for character in missing:
        family = _family_with(character)
        if family is None:
            replaced[character] = _instead_of(character)
        elif family not in families:
            families.append(family)
    shown = "".join(replaced.get(character, character) for character in text)
    return Drawable(shown, families, complete=_STAND_IN not in replaced.values())


def _instead_of(character: str) -> str:
    category = unicodedata.category(character)
    if category in _IGNORABLE:
        return ""
    if category == "Cc":
        return character if character == "\n" else " "
    _note(character)
    return _STAND_IN


def _note(character: str) -> None:
    """Say it once for a script."""
    script = _script(character)
    if script in _noted:
        return
    _noted.add(script)
    font = "Noto Emoji" if script == "symbol" else f"Noto Sans {script.title()}"
    logger.warning(
        "no installed font has the %s character U+%04X: pictures show %s for such characters; "
        "install a font that has them, for example %s, and draw again",
        script,
        ord(character),
        _STAND_IN,
        "Noto Sans CJK (fonts-noto-cjk)" if script in _CJK else font,
    )


def _script(character: str) -> str:
    """Return a character's script, which is the first word of its name in Unicode."""
    if not unicodedata.category(character).startswith("L"):
        return "symbol"
    return unicodedata.name(character, "unassigned").partition(" ")[0]


@cache
def _family_with(character: str) -> str | None:
    """Return an installed family of fonts that has a character."""
    script = _script(character)
    # Where no font had the first character of a script, they are not all asked for the others.
    asked = _helpful if script in _without_font else [*_helpful, *_families()]
    family = next((name for name in asked if _has(name, character)), None)
    if family is None:
        _without_font.add(script)
    elif family not in _helpful:
        _helpful.append(family)
    return family


@cache
def _families() -> tuple[str, ...]:
    names = {entry.name for entry in fontManager.ttflist}
    return tuple(sorted(name for name in names if not name.startswith(_LAST_RESORT)))


def _has(family: str, character: str) -> bool:
    try:
        # The very file that is drawn with; a family of bold fonts alone may lack it.
        path = fontManager.findfont(FontProperties(family=[family]), fallback_to_default=False)
        return get_font(path).get_char_index(ord(character)) != 0
    except (OSError, RuntimeError, ValueError):  # no such family, or a damaged file
        return False
