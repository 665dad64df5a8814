"""The table renderer: it wraps, it aligns, and nothing it is given can break out of its cell."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from preshuffle.api.commands.screens.screen import Screen, print_json
from preshuffle.api.commands.screens.table import Cell, Column, paint, printable, render, wrap


class Word(BaseModel):
    text: str


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80), st.integers(1, 40))
def test_wrapping_keeps_every_character_and_the_width(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert max(map(len, lines)) <= width
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", printable(text))


def test_wrapping_prefers_spaces_then_joints_then_anything() -> None:
    assert wrap("one two three", 8) == ["one two", "three"]
    assert wrap("flydsl_moe1_afp4_wfp4", 12) == ["flydsl_moe1_", "afp4_wfp4"]
    assert wrap("abcdefgh", 3) == ["abc", "def", "gh"]
    assert wrap("a\n\nb", 5) == ["a", "", "b"]
    assert wrap("", 5) == [""]


def test_control_characters_are_spelled_out() -> None:
    assert printable("a\x1b[31m\x07\tb\n") == "a\\x1b[31m\\x07\\tb\n"
    assert printable("\udcff") == "\\udcff"
    assert printable("é→\U0001f600") == "é→\U0001f600"


def test_columns_line_up_and_rows_have_no_tail() -> None:
    text = render([Column("name"), Column("n", right=True), Column("why")], [("a", "1", "x"), ("long", "200", "")], 80)
    assert text == "  name    n  why\n  a       1  x\n  long  200"


def test_the_widest_column_gives_way_first() -> None:
    columns = [Column("a", wraps=True), Column("b", wraps=True), Column("c")]
    text = render(columns, [("word " * 3, "word " * 20, "kept as it is")], 50)
    assert max(map(len, text.splitlines())) <= 50
    assert "word word word" in text
    assert "kept as it is" in text


def test_a_table_without_titles_has_no_title_line() -> None:
    assert render([Column(), Column()], [("a", "b")], 40, indent=0) == "a  b"


def test_colour_is_outside_of_the_width() -> None:
    rows = [(Cell("one two", "bad"), "x")]
    plain = render([Column("t", wraps=True), Column("u")], rows, 12)
    coloured = render([Column("t", wraps=True), Column("u")], rows, 12, colour=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert "\x1b[1;31mone" in coloured
    assert paint("x", "", True) == paint("x", "good", False) == "x"


class Terminal:
    """A stdout that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_colour_needs_a_terminal_and_no_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Screen.of_terminal().colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Screen.of_terminal().colour
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not Screen.of_terminal().colour


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_survives_every_encoding(
    encoding: str, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_json(Word(text="é→\U0001f600"), out)
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    assert json.loads(out.buffer.getvalue()) == {"text": "é→\U0001f600"}
    monkeypatch.setattr(sys, "stdout", out)
    screen = Screen(80, False)
    screen.line("é→")
    screen.show()
