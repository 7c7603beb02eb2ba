"""Which kernel sizes a map is pooled with, how many rectangles that makes, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lca_fused.rectangles import normalize_kernel_sizes, num_rectangles, resolve_kernel_sizes

sides = st.integers(1, 9)


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [
        (1, 2, 1),
        (2, 2, 5),
        (7, 7, 735),
        (12, 5, 1110),
        (13, 13, 8112),
        (14, 14, 10829),
        (28, 28, 164052),
        (56, 56, 2544080),
    ],
)
def test_the_papers_kernel_sizes_make_this_many_rectangles(height, width, count):
    assert num_rectangles(height, width, resolve_kernel_sizes(height, width)) == count


@given(height=sides, width=sides)
def test_every_size_that_fits_but_1x1_is_used_once(height, width):
    if (height, width) == (1, 1):
        return
    sizes = resolve_kernel_sizes(height, width)
    assert len(sizes) == height * width - 1
    assert set(sizes) == {(kh, kw) for kh in range(1, height + 1) for kw in range(1, width + 1)} - {
        (1, 1)
    }


@given(height=sides, width=sides, data=st.data())
def test_chosen_kernel_sizes_come_back_sorted_and_count_their_places(height, width, data):
    pairs = st.tuples(st.integers(1, height), st.integers(1, width))
    chosen = data.draw(st.lists(pairs, min_size=1, unique=True))
    resolved = resolve_kernel_sizes(height, width, chosen)
    assert resolved == tuple(sorted(chosen))
    places = [
        (top, left, kh, kw)
        for kh, kw in chosen
        for top in range(height)
        for left in range(width)
        if top + kh <= height and left + kw <= width
    ]
    assert num_rectangles(height, width, resolved) == len(places)


def test_lists_tuples_and_generators_of_pairs_are_taken():
    expected = ((1, 2), (2, 1))
    assert normalize_kernel_sizes([[2, 1], [1, 2]]) == expected
    assert normalize_kernel_sizes(((2, 1), (1, 2))) == expected
    assert normalize_kernel_sizes((k, 3 - k) for k in (1, 2)) == expected


def test_1x1_may_be_chosen_even_on_a_1x1_map():
    assert resolve_kernel_sizes(1, 1, [(1, 1)]) == ((1, 1),)


@pytest.mark.parametrize(
    ("kernel_sizes", "error", "message"),
    [
        (
            None,
            ValueError,
            r"a 1x1 feature map has no rectangle larger .* kernel_sizes=\[\(1, 1\)\]",
        ),
        ([], ValueError, r"kernel_sizes is empty; give at least one"),
        ([(1, 1), (1, 1)], ValueError, r"holds \[\(1, 1\)\] more than once"),
        ([(1, 1), (2, 1), (1, 3)], ValueError, r"\[\(1, 3\), \(2, 1\)\] do not fit the 1x1"),
        ([(0, 1)], ValueError, r"holds \(0, 1\); each side must be at least 1"),
        ([(1, -2)], ValueError, r"holds \(1, -2\); each side must be at least 1"),
        ([3], TypeError, r"holds 3; expected pairs of integers \(kh, kw\)"),
        ([(1, 2, 3)], TypeError, r"holds \(1, 2, 3\); expected pairs"),
        ([(1.0, 2)], TypeError, r"holds \(1\.0, 2\); expected pairs"),
        ([(True, 2)], TypeError, r"holds \(True, 2\); expected pairs"),
        (["ab"], TypeError, r"holds 'ab'; expected pairs"),
    ],
)
def test_kernel_sizes_that_cannot_be_meant_are_refused(kernel_sizes, error, message):
    with pytest.raises(error, match=message):
        resolve_kernel_sizes(1, 1, kernel_sizes)


def test_kernel_sizes_that_are_no_iterable_are_refused():
    with pytest.raises(TypeError, match="kernel_sizes is 3; expected pairs of integers"):
        normalize_kernel_sizes(3)
