import numpy as np
import pytest

from experiments.methods import PAPER_BACKBONE, PAPER_ROWS, parse_rows
from experiments.report.table import in_short, in_words
from experiments.results import Entry, NotRun, Result, difference, steps
from tests.stored_runs import entry, outcome


def run(correct: int, seed: int | None = 0) -> Result:
    """A result that gets the first `correct` of 100 photos right."""
    return outcome(np.arange(100) < correct, seed)


def gain(before: Entry, after: Entry):
    rows = parse_rows(["gap", "lca"], "resnet50")
    (step,) = steps(rows)
    return step, difference(before, after)


def pairs(names, backbone="resnet50"):
    return [(step.before.name, step.after.name) for step in steps(parse_rows(names, backbone))]


def test_tricks_are_measured_against_the_rows_they_change():
    assert pairs(["sift", "gap", "gap-fc", "gem", "lca", "lca-me"]) == [
        ("sift", "gap"),
        ("gap", "gap-fc"),
        ("gap", "gem"),
        ("gap", "lca"),
        ("gap-fc", "lca"),
        ("lca", "lca-me"),
    ]


def test_the_papers_ladder_has_a_step_for_each_of_its_tricks():
    inet, wsl = "gap@resnext101-32x8d", "gap@resnext101-32x8d-wsl"
    found = pairs(PAPER_ROWS, PAPER_BACKBONE)
    assert found[0] == ("superpoint", inet)
    assert (inet, wsl) in found, "other weights"
    assert (wsl, "lca@resnext101-32x8d-wsl") in found
    assert ("lca@resnext101-32x8d-wsl", "lca-me@resnext101-32x8d-wsl") in found
    assert (inet, "lca@resnext101-32x8d-wsl") not in found, "two things changed at once"


def test_runs_of_equal_seeds_are_paired_in_any_order():
    before = entry(run(50, seed=0), run(70, seed=1))
    after = entry(run(75, seed=1), run(90, seed=2))
    _, found = gain(before, after)
    assert found.seeds == 1
    assert found.estimate == pytest.approx(0.05)


def test_without_a_common_seed_nothing_is_compared():
    _, found = gain(entry(run(50, seed=0)), entry(run(50, seed=1)))
    assert found is None
    assert in_short(found) == "not run"
    missing = entry(not_run=NotRun("no photos", "give some"))
    assert gain(missing, entry(run(50)))[1] is None


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (50, 80, "LCA helped on data: +30.0 points"),
        (80, 50, "LCA hurt on data: -30.0 points"),
        (50, 51, "LCA made no difference that can be told from chance on data: +1.0 points"),
    ],
)
def test_the_sentence_says_whether_it_helped(before, after, verdict):
    step, found = gain(entry(run(before)), entry(run(after)))
    sentence = in_words(step, "data", found)
    assert sentence.startswith(f"{verdict} against global average pooling (95 % interval ")
    assert "one seed" in sentence
    assert f"{100 * found.low:+.1f} to {100 * found.high:+.1f}" in sentence


@pytest.mark.parametrize(("before", "after"), [(95, 100), (100, 95)])
def test_the_sentence_never_contradicts_its_p_value(before, after):
    step, found = gain(entry(run(before)), entry(run(after)))
    assert found.low > 0 or found.high < 0, "the interval alone would tell it from chance"
    assert found.p_value == pytest.approx(2 * 0.5**5), "five coins"
    sentence = in_words(step, "data", found)
    assert "LCA made no difference that can be told from chance" in sentence
    assert "p = 0.062" in sentence


def test_p_values_are_printed_to_two_digits_but_never_as_zero():
    _, large = gain(entry(run(50)), entry(run(51)))
    _, tiny = gain(entry(run(0)), entry(run(100)))
    assert "p = 1)" in in_short(large)
    assert "p < 0.001)" in in_short(tiny)
