"""Ranges of numbers, against the sets of numbers that they stand for."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preshuffle.registry.base.ranges import merge_ranges, range_text, ranges_text

small = st.integers(0, 40)
ranges = st.lists(st.tuples(small, st.integers(0, 5)).map(lambda item: (item[0], item[0] + item[1])), max_size=8)


@given(ranges)
def test_merged_ranges_hold_the_same_numbers_and_keep_gaps_between_them(given_ranges: list[tuple[int, int]]) -> None:
    merged = merge_ranges(given_ranges)
    wanted = {number for first, last in given_ranges for number in range(first, last + 1)}
    assert {number for first, last in merged for number in range(first, (last or first) + 1)} == wanted
    assert all(last is not None and last + 1 < after for (_, last), (after, _) in pairwise(merged))


@given(st.sets(small))
def test_the_text_of_numbers_can_be_read_back(numbers: set[int]) -> None:
    found: set[int] = set()
    for part in filter(None, ranges_text(numbers).split(", ")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == numbers


@pytest.mark.parametrize(
    ("given_ranges", "merged"),
    [
        ([(1, None), (5, 9)], [(1, None)]),
        ([(1, 4), (5, None)], [(1, None)]),
        ([(7, None), (1, 5)], [(1, 5), (7, None)]),
    ],
)
def test_a_range_without_end_takes_what_follows(
    given_ranges: list[tuple[int, int | None]], merged: list[tuple[int, int | None]]
) -> None:
    assert merge_ranges(given_ranges) == merged


def test_text() -> None:
    assert (range_text(5, 5, " to "), range_text(1, 3, " to "), range_text(64, None, "–")) == ("5", "1 to 3", "64–")
    assert ranges_text([0, 1, 2, 5], "–") == "0–2, 5"
    assert ranges_text([]) == ""
