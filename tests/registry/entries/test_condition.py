"""Conditions: what they match, and that the overlap of two is decided and not sampled."""

import re
from fnmatch import fnmatchcase
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preshuffle.registry.base.globs import glob_test, globs_overlap
from preshuffle.registry.entries.condition import Condition, Interval, Scalar

WORDS = ["".join(letters) for length in range(6) for letters in product("ab", repeat=length)]
globs = st.text("ab*?", max_size=5)
intervals = st.builds(
    Interval,
    low=st.none() | st.integers(0, 5),
    low_closed=st.booleans(),
    high=st.none() | st.integers(0, 5),
    high_closed=st.booleans(),
)


@given(globs, globs)
def test_globs_overlap_is_what_brute_force_finds(left: str, right: str) -> None:
    """Any common word can be cut down to one with at most the letters that both globs name: five are enough here."""
    common = any(fnmatchcase(word, left) and fnmatchcase(word, right) for word in WORDS)
    assert globs_overlap(left, right) == globs_overlap(right, left)
    assert globs_overlap(left, right) or not common
    short = len(left.replace("*", "")) + len(right.replace("*", "")) <= 5
    assert common == globs_overlap(left, right) or not short


@given(intervals, intervals)
def test_interval_intersection_holds_what_both_hold(left: Interval, right: Interval) -> None:
    both = left.intersect(right)
    keys = [half / 2 for half in range(-2, 14)]
    assert [key in left and key in right for key in keys] == [both is not None and key in both for key in keys]


@pytest.mark.parametrize(
    ("field", "reading", "wanted", "yes", "no"),
    [
        ("arch", "plain", "gfx950", ["gfx950"], ["gfx942", None, ""]),
        ("engine", "glob", None, [None], ["vllm", ""]),
        ("tp", "number", 2, [2], [1, "2", None, True]),
        ("tp", "number", 1, [1], [True, 2]),
        ("gated", "plain", True, [True], [1, False, None, "True"]),
        ("tp", "number", [1, 2], [1, 2], [3, None, True]),
        ("tp", "number", ">=2, <8", [2, 7], [1, 8, None]),
        ("model", "glob", "openai/*", ["openai/x", "openai/"], ["openai", None, "xopenai/x"]),
        ("model", "glob", "a?c", ["abc", "a\nc", "a*c"], ["ac", "abbc"]),
        ("deployment", "glob", "canary-*", ["canary-1", "canary-\u202e"], ["Canary-1", None]),
        ("aiter", "version", "0.1.14", ["0.1.14", "0.1.14.0", "v0.1.14"], ["0.1.14.post1", None]),
        ("aiter", "version", ">=0.1.14,<0.1.20", ["0.1.14", "0.1.20rc1"], ["0.1.20", "0.1.14.dev1", None]),
        ("env.X", "number", ">=256", ["256", "1000"], ["255", "abc", "", None, "1e9"]),
        ("env.X", "number", "", [""], ["0", None]),
    ],
)
def test_matches(field: str, reading: str, wanted: object, yes: list[Scalar], no: list[Scalar]) -> None:
    condition = Condition.parse(field, wanted, reading)
    assert [value for value in [*yes, *no] if condition.matches(value)] == yes


@pytest.mark.parametrize(
    ("left", "right", "reading", "both"),
    [
        ("a", "a", "glob", True),
        ("a", "b", "glob", False),
        ("a", ["b", "a"], "glob", True),
        ("a", ["b", "c"], "glob", False),
        (["a", "b"], ["b", "c"], "glob", True),
        (["a", "b"], ["c", "d"], "glob", False),
        ("abc", "a*", "glob", True),
        ("abc", "b*", "glob", False),
        (["xyz", "abc"], "*c", "glob", True),
        ("*a", "b*", "glob", True),
        ("a*", "b*", "glob", False),
        ("a?", "?b", "glob", True),
        ("a?", "a", "glob", False),
        (None, "*", "glob", False),
        (None, [None, "a"], "glob", True),
        (2, ">=2", "number", True),
        (2, ">2", "number", False),
        ([1, 4], ">2", "number", True),
        ("<2", ">=2", "number", False),
        ("<=2", ">=2", "number", True),
        ("0.1.14", ">=0.1.14", "version", True),
        ("0.1.14.0", "0.1.14", "version", True),
        ("<0.1.14", ">=0.1.14", "version", False),
        (">=0.1.14,<0.1.16", ">=0.1.15", "version", True),
    ],
)
def test_overlap_is_decided_and_symmetric(left: object, right: object, reading: str, both: bool) -> None:
    first, second = (Condition.parse("x", value, reading) for value in (left, right))
    assert first.overlaps(second) == second.overlaps(first) == both
    assert first.overlaps(first)


@pytest.mark.parametrize(
    ("reading", "value", "part"),
    [
        ("plain", 2.5, "neither a value nor a list"),
        ("plain", {}, "neither a value nor a list"),
        ("number", [], "a list needs values"),
        ("number", [[1]], "a list needs values"),
        ("number", [2.5], "a list needs values"),
        ("glob", "[a-c]", "'*' and '?' only"),
        ("glob", ["a*"], "a list has no globs"),
        ("glob", "<x>", "a field that counts"),
        ("plain", ">=gfx950", "a field that counts"),
        ("version", "latest", "not a version"),
        ("version", ["latest"], "not a version"),
        ("version", ">=latest", "not a version"),
        ("version", ">=0.1.14 <0.1.16", "not a bound"),
        ("version", ">=0.1.14,", "not a bound"),
        ("version", ">=0.1.14,<0.1.10", "nothing lies in"),
        ("number", ">=2,<2", "nothing lies in"),
        ("number", ">2.5", "not a whole number"),
        ("number", ">", "not a bound"),
    ],
)
def test_meaningless_conditions_are_refused(reading: str, value: object, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        Condition.parse("x", value, reading)


@pytest.mark.parametrize("value", [1, True, [1]])
def test_a_switch_is_text(value: object) -> None:
    with pytest.raises(ValueError, match=r"when\.env\.X: an environment value is text; write it in quotes"):
        Condition.parse("env.X", value, "number")


def test_a_glob_has_a_length() -> None:
    longest = "a*" * 64
    assert Condition.parse("x", longest, "glob").overlaps(Condition.parse("x", "*b" * 63 + "*a", "glob"))
    with pytest.raises(ValueError, match="at most 128 characters, found 129"):
        Condition.parse("x", f"{longest}a", "glob")


def test_long_globs_do_not_take_forever() -> None:
    assert globs_overlap("*a" * 40 + "*", "*b" * 40 + "*")
    assert not globs_overlap("*a" * 40 + "c", "*b" * 40 + "d")


@given(st.text("ab*?[", max_size=6), st.text("ab[\n", max_size=6))
def test_a_glob_made_ready_is_the_glob(glob: str, text: str) -> None:
    assert glob_test(glob)(text) == fnmatchcase(text, glob)
