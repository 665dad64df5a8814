"""Overlays that were made to be costly are refused, or load, within a second of computing."""

from __future__ import annotations

import gc

import pytest

from preshuffle.registry.base.errors import BookError
from preshuffle.registry.base.limits import MAX_PROBLEMS
from preshuffle.registry.lint import lint
from preshuffle.registry.loading import load_book
from preshuffle.registry.text import parse_yaml
from support.bombs.overlays import LIMIT, bad_keys, bombs, good_rules
from support.bombs.rules import entry_bombs
from support.bombs.sections import section_bombs
from support.computing import computed_within

MOST_S = 1.0
"""Seconds of computing."""
QUICK = ("bad keys of one entry", "bad entries", "a key twice", "laughs", "merges", "deep lists", "many documents",
         "long numbers", "sets", "unknown bases", "globs", "globs that end apart", "ranges apart", "short directives",
         "rules that cover rules", "conditions of few versions", "anagrams of switches", "patterns of classes",
         "families of one name", "contracts and rules")  # fmt: skip
BOMBS = dict([*bombs(), *entry_bombs(), *section_bombs()])


def refuse(text: str) -> BookError | None:
    """Load and check an overlay, within a second of computing."""
    assert len(text.encode()) <= LIMIT
    gc.collect()
    found = computed_within(MOST_S, lambda: refusal_of(text))
    if found is not None:
        assert len(found.problems) <= MAX_PROBLEMS + 1
        assert len(str(found)) < 1 << 20
    return found


def refusal_of(text: str) -> BookError | None:
    try:
        problems = lint(load_book(texts=[{"o.yaml": text}]))
    except BookError as error:
        return error
    return BookError(problems) if problems else None


@pytest.mark.parametrize("name", QUICK)
def test_a_costly_overlay_is_refused_at_once(name: str) -> None:
    assert refuse(BOMBS[name]) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_every_costly_overlay_is_answered_at_once(name: str) -> None:
    refuse(BOMBS[name])


def test_of_many_mistakes_a_hundred_are_told_and_the_rest_is_counted() -> None:
    error = refuse(bad_keys(60_000))
    assert error is not None
    assert len(error.problems) == MAX_PROBLEMS + 1
    assert [problem.line for problem in error.problems[:3]] == [2, 2, 3] or error.problems[0].line in (2, 3)
    assert "and 59,9" in str(error.problems[-1])


def test_thousands_of_good_rules_load_at_once() -> None:
    assert refuse(good_rules(4000)) is None


def test_numbers_to_the_base_60_are_text() -> None:
    document, problems = parse_yaml("a: 1:30\nb: 190:20:30.15\nc: 12\nd: -1:30\ne: 1.5", "x")
    assert not problems
    assert document.value == {"a": "1:30", "b": "190:20:30.15", "c": 12, "d": "-1:30", "e": 1.5}
