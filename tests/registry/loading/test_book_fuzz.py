"""Whatever a book file holds, it loads or is refused with located problems within a second; JSON brings it back."""

import json
import random
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from preshuffle.registry import BookError
from preshuffle.registry.base.errors import Problem
from preshuffle.registry.loading.book import Place
from preshuffle.registry.loading.load import SECTIONS, _entry, load_book
from preshuffle.registry.text.yaml_text import parse_yaml
from support.book.strategies import BOOK
from support.computing import computed_within

PACKAGED = files("preshuffle.registry") / "book"
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    1 << 70,
    0.5,
    "",
    "x" * 300,
    "*",
    [],
    [[]],
    [None],
    {},
    {"": {}},
    {"a": [1]},
    "\x00",
)
WORDS = (
    "&a",
    "*a",
    "<<: ",
    "!!int ",
    "!!python/name:os.system ",
    "? ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "\t",
    "'",
    '"',
    "%",
    "|\n",
)
BOMBS = {
    "aliases": "a: &a [x,x]\n" + "".join(f"{b}: &{b} [*{a},*{a},*{a},*{a}]\n" for a, b in pairwise("abcdefghijk")),
    "a cycle": "rules: &r\n  a: *r\n",
    "depth": "rules: " + "[" * 5000,
    "depth of blocks": "\n".join(" " * depth + "a:" for depth in range(900)),
    "many values": "rules: [" + "1," * 250_000 + "]",
    "long keys": "rules: {? " + "k" * 60_000 + " : 1}",
    "a number of many digits": "rules: {a: {priority: " + "9" * 50_000 + "}}",
}


def texts() -> dict[str, str]:
    names = ("rules_mxfp4.yaml", "recipes_mxfp4.yaml", "layouts.yaml", "aiter_features.yaml", "known_bad.yaml")
    return {name: (PACKAGED / name).read_text(encoding="utf-8") for name in names}


def problems_of(text: str) -> list[Problem]:
    """Read a text as a book file is read, entry by entry; anything but a located problem fails the test."""
    problems = computed_within(1, lambda: read(text), text[:200])
    lines = text.count("\n") + 2
    assert all(problem.file == "fuzzed.yaml" and 1 <= problem.line <= lines for problem in problems)
    assert all(problem.message and "\n" not in problem.message for problem in problems)
    return problems


def read(text: str) -> list[Problem]:
    document, problems = parse_yaml(text, "fuzzed.yaml")
    for section, items in (document.value if isinstance(document.value, dict) else {}).items():
        if section in SECTIONS and isinstance(items, dict):
            for id, raw in items.items():
                _entry(SECTIONS[section], id, raw, Place(document, (section, id)), problems)
    return problems


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def test_text_that_was_damaged() -> None:
    draw = random.Random(5)
    for text in texts().values():
        for _ in range(40):
            at, length = draw.randrange(len(text)), draw.randrange(12)
            problems_of(text[:at] + draw.choice(WORDS) + text[at + length :])


def test_a_wrong_type_at_every_level() -> None:
    draw = random.Random(6)
    refused = 0
    for text in texts().values():
        value = parse_yaml(text, "")[0].value
        found = [path for path in places(value) if path]
        for path in draw.sample(found, 60):
            changed = json.loads(json.dumps(value))
            *above, last = path
            inner = changed
            for key in above:
                inner = inner[key]
            inner[last] = draw.choice(ODD)
            refused += bool(problems_of(json.dumps(changed)))
    assert refused > 150


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_in_one_problem(name: str) -> None:
    problems = problems_of(BOMBS[name])
    assert problems
    assert len(problems) < 60


def test_json_brings_the_book_back(tmp_path: Path) -> None:
    """What an entry is written as reads back as the same entry."""
    raw = {
        section: {id: entry.model_dump(mode="json", exclude={"id"}) for id, entry in entries.items()}
        for section, entries in BOOK.entries.items()
    }
    path = tmp_path / "book.yaml"
    path.write_text(json.dumps(raw))
    try:
        assert load_book([path]).entries == BOOK.entries
        del raw["kernel_evidence"]  # the packaged evidence is not in the digest, a book's own is
        path.write_text(json.dumps(raw))
        assert load_book([path]).digest == BOOK.digest
    except BookError as error:
        raise AssertionError(str(error)[:2000]) from None
