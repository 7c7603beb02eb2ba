"""Intervals and p-values against hand-computed ones, and against what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit

from experiments import significance
from experiments.significance import (
    class_accuracies,
    mcnemar,
    paired_difference,
    student_half_width,
    wilson_interval,
)

Z = 1.959964


def outcomes(both: int, first: int, second: int, neither: int):
    """Two runs: photos that both get right, only the first, only the second, and neither."""
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat(
        [True, False, True, False], counts
    )


def test_wilson_interval_is_its_formula():
    n, share = 50, 0.9
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    assert wilson_interval(45, 50) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_wilson_interval_of_a_perfect_score_is_not_a_point():
    low, high = wilson_interval(30, 30)
    assert low == pytest.approx(30 / (30 + Z**2), abs=1e-6)
    assert high == pytest.approx(1)


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="k"):
        wilson_interval(5, 3)


def test_student_interval_of_two_seeds():
    # 12.706 is the quantile with one degree of freedom, the deviation is 0.1 / sqrt(2)
    assert student_half_width([0.5, 0.6]) == pytest.approx(12.7062 * 0.05, rel=1e-4)
    assert student_half_width([0.5]) is None


def test_mcnemar_counts_discordant_photos_only():
    # 1 of 6 discordant photos goes the other way: 2 * (C(6,0) + C(6,1)) / 2**6
    assert mcnemar(*outcomes(100, 1, 5, 3)) == pytest.approx(2 * 7 / 64)
    assert mcnemar(*outcomes(0, 5, 1, 0)) == pytest.approx(2 * 7 / 64)


def test_mcnemar_of_equal_runs_is_one():
    assert mcnemar(*outcomes(10, 0, 0, 2)) == 1


def test_runs_on_other_photos_are_refused():
    with pytest.raises(ValueError, match="3 and 4 photos"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_one_seed_has_agresti_and_mins_interval_and_mcnemars_p():
    first, second = outcomes(80, 4, 12, 4)
    gain = paired_difference(first[None], second[None])
    n, b, c = 102, 4.5, 12.5
    half = Z * math.sqrt((b + c) - (c - b) ** 2 / n) / n
    assert gain.estimate == pytest.approx(0.08)
    assert (gain.low, gain.high) == pytest.approx(((c - b) / n - half, (c - b) / n + half))
    assert gain.p_value == mcnemar(first, second)
    assert gain.seeds == 1


def test_rows_without_a_discordant_photo_are_not_certainly_equal():
    run = np.ones((3, 200), bool)
    gain = paired_difference(run, run)
    assert gain.estimate == 0
    assert gain.low < -0.005 < 0.005 < gain.high
    assert gain.p_value == pytest.approx(1)


def test_a_p_value_is_no_smaller_than_can_be_told():
    first = np.zeros((2, 500), bool)
    assert paired_difference(first, ~first).p_value == pytest.approx(1e-12)


def test_seeds_that_agree_add_no_photos():
    """The same photos once a seed are no more photos: the interval stays that of one seed."""
    first, second = outcomes(80, 4, 12, 4)
    once = paired_difference(first[None], second[None])
    thrice = paired_difference(np.tile(first, (3, 1)), np.tile(second, (3, 1)))
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert thrice.seed_p_values == once.seed_p_values * 3


def test_seeds_that_disagree_widen_the_interval_by_students_law():
    first, second = outcomes(880, 40, 60, 20)
    both = paired_difference(np.stack([first, second]), np.stack([second, first]))
    # Differences of +2 and -2 points, and photos whose mean differences are all 0.
    seeds = 12.7062 * 0.02
    photos = Z / 1002
    assert both.high - both.low == pytest.approx(2 * math.hypot(seeds, photos), rel=1e-3)


def test_equally_good_methods_have_p_1_where_quantiles_are_rounded(monkeypatch):
    monkeypatch.setattr(significance, "stdtrit", lambda *of: stdtrit(*of) + 8e-17)  # old SciPy's
    first, second = outcomes(80, 4, 6, 10)
    seeds = np.stack([first, second])
    assert paired_difference(seeds, seeds[::-1]).p_value == 1


def test_a_run_without_seeds_is_paired_with_every_run():
    first, second = outcomes(80, 4, 12, 4)
    seeds = np.stack([second, first, second])
    expected = paired_difference(np.tile(first, (3, 1)), seeds)
    assert paired_difference(first[None], seeds) == expected
    assert expected.seeds == 3


def test_unpaired_numbers_of_runs_are_refused():
    with pytest.raises(ValueError, match="equal numbers of runs"):
        paired_difference(np.ones((2, 5), bool), np.ones((3, 5), bool))


@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(1, 60))
def test_p_value_and_interval_of_several_seeds_say_the_same(seed, seeds, n):
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, seeds, n)) < rng.uniform(0.1, 0.9, (2, 1, 1))
    gain = paired_difference(first, second)
    assert -1 <= gain.low <= gain.high <= 1
    assert (gain.p_value < 0.05) == (gain.low > 0 or gain.high < 0)
    mirrored = paired_difference(second, first)
    assert (mirrored.low, mirrored.high) == pytest.approx((-gain.high, -gain.low))
    assert mirrored.p_value == pytest.approx(gain.p_value)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_deviation", [0.0, 0.1, 0.5])
def test_the_interval_covers_the_true_difference(seeds, seed_deviation):
    """Photos are easy or hard, runs are lucky or not, and both differ from row to row."""
    rng = np.random.default_rng([seeds, int(10 * seed_deviation)])
    photos, trials, hits = 200, 300, 0
    for _ in range(trials):
        ease = rng.normal(size=photos)
        right = [
            ease
            + 0.5
            + seed_deviation * rng.normal(size=(seeds, 1))
            + rng.normal(size=(seeds, photos), scale=0.5)
            > 0
            for _ in range(2)
        ]
        gain = paired_difference(*right)  # the two methods are equally good
        hits += gain.low <= 0 <= gain.high
    # In 4000 trials of each it does in 95.0 to 99.8 %; 3 standard errors of 300 trials are less.
    assert hits / trials > 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


def test_class_accuracies_are_means_over_runs():
    labels = np.array([0, 0, 2, 2])
    right = np.array([[1, 0, 1, 1], [1, 1, 1, 0]], bool)
    assert class_accuracies(labels, right, classes=3) == [0.75, None, 0.75]
