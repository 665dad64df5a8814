"""Docstrings: first lines that one reads at a glance."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from support.source.docstrings import first_lines, words_of

ROOT = Path(__file__).parents[2]
FOLDERS = ("preshuffle", "registry", "layouts", "api", "bench")
MOST_WORDS = 12


def long_lines(path: str, text: str) -> list[str]:
    """Return the first docstring lines of a file that have too many words, with their places."""
    found = first_lines(ast.parse(text))
    return [f"{path}:{number}: {line}" for number, line in found if len(words_of(line)) > MOST_WORDS]


def test_first_lines_have_at_most_twelve_words() -> None:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")] + [*ROOT.glob("*.py")]
    found = [long_lines(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in sorted(paths)]
    assert [line for lines in found for line in lines] == []


LONG = " ".join(["word"] * 13)


@pytest.mark.parametrize(
    "text",
    [
        f'"""{LONG}."""',
        f'class A:\n    """{LONG}."""',
        f'def f():\n    """{LONG}."""',
        f'class A:\n    def f(self):\n        """{LONG}."""',
    ],
)
def test_a_long_line_is_seen(text: str) -> None:
    assert len(long_lines("x.py", text)) == 1
    assert long_lines("x.py", text.replace(LONG, f"{LONG[5:]} · –\n\n    {LONG}")) == []


def test_private_names_are_not_looked_at() -> None:
    assert long_lines("x.py", f'def _f():\n    """{LONG}."""') == []
