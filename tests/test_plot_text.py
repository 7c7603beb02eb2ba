"""Class names in scripts that matplotlib's own font lacks."""

import io
import warnings

import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from lca_fused import plot_text
from lca_fused.plot_text import drawable

COLA = "可口可乐"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Forget what earlier texts found out."""
    for name in ("_helpful", "_without_font", "_noted"):
        kind = type(getattr(plot_text, name))
        monkeypatch.setattr(plot_text, name, kind())
    plot_text._family_with.cache_clear()
    plot_text._families.cache_clear()


@pytest.fixture
def without_others(monkeypatch):
    """A machine with the fonts of matplotlib alone."""
    names = ("DejaVu Sans", "Last Resort High-Efficiency")
    own = [entry for entry in plot_text.fontManager.ttflist if entry.name in names]
    monkeypatch.setattr(plot_text.fontManager, "ttflist", own)


def drawn_with(text):
    figure, shown = Figure(), drawable(text)
    figure.suptitle(shown.text, fontfamily=shown.families, parse_math=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png")
    return shown


def test_a_name_that_the_default_font_has_is_drawn_as_it_is(without_others, caplog):
    shown = drawn_with("Кофе, café ±3 µ")
    assert (shown.text, shown.families, shown.complete) == (
        "Кофе, café ±3 µ",
        ["sans-serif"],
        True,
    )
    assert not caplog.text


def test_a_script_without_a_font_is_noted_once_and_drawn_without_boxes(without_others, caplog):
    shown = drawn_with(f"{COLA} 330 ml")
    assert shown.text == "???? 330 ml"
    assert not shown.complete
    drawn_with("雪碧")
    (note,) = caplog.messages
    assert "CJK" in note
    assert "fonts-noto-cjk" in note
    drawn_with("ไทย")
    assert "Noto Sans Thai" in caplog.messages[1]


def test_an_installed_font_that_has_the_characters_is_taken(monkeypatch, caplog):
    has = plot_text._has
    monkeypatch.setattr(
        plot_text,
        "_has",
        lambda family, c: family == "STIXGeneral" if c in COLA else has(family, c),
    )
    shown = drawable(f"{COLA} 330 ml")
    assert shown.families == ["sans-serif", "STIXGeneral"]
    assert shown.text == f"{COLA} 330 ml"
    assert shown.complete
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\udce9", "caf\\udce9"),
        ("a\tb", "a b"),
        ("two\nlines", "two\nlines"),
        ("tagged\U000e0041", "tagged"),
    ],
)
def test_what_is_no_letter_needs_no_font(without_others, caplog, text, shown):
    assert drawn_with(text).text == shown
    assert not caplog.text
