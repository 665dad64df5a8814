"""What YAML made of a packaged file is kept as compiled modules are: only for the same text, and never missed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.lint import lint_packaged
from preshuffle.registry.loading import Book, load_book
from preshuffle.registry.text import book_cache
from preshuffle.registry.text.book_cache import packaged_document
from preshuffle.registry.text.yaml_text import parse_yaml

TEXT = "archs:\n  gfx950: {cu_num: 256}\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A book of one file, and a place for what is compiled."""
    folder = tmp_path / "book"
    folder.mkdir()
    monkeypatch.setattr(book_cache, "FOLDER", folder)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "compiled"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = folder / "archs.yaml"
    file.write_text(TEXT)
    return file


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the texts that YAML has read."""
    names: list[str] = []

    def counted(text: str, name: str) -> object:
        names.append(name)
        return parse_yaml(text, name)

    monkeypatch.setattr("preshuffle.registry.text.yaml_text.parse_yaml", counted)
    return names


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "compiled").rglob("*.yamlc"))  # what Python imports meanwhile is compiled there, too


def test_yaml_reads_a_text_once(file: Path, parsed: list[str], tmp_path: Path) -> None:
    first = packaged_document(file.name)
    assert parsed == ["book/archs.yaml"]
    assert len(kept(tmp_path)) == 1
    assert packaged_document(file.name) == first
    assert parsed == ["book/archs.yaml"]
    document, problems = first
    assert document.value == {"archs": {"gfx950": {"cu_num": 256}}}
    assert problems == []
    assert document.mark(("archs", "gfx950")) == (2, 3)


def test_another_text_is_read_anew(file: Path, parsed: list[str], tmp_path: Path) -> None:
    packaged_document(file.name)
    file.write_text(TEXT.replace("256", "304"))
    assert packaged_document(file.name)[0].value == {"archs": {"gfx950": {"cu_num": 304}}}
    assert len(parsed) == 2
    assert len(kept(tmp_path)) == 1
    assert packaged_document(file.name)[0].value == {"archs": {"gfx950": {"cu_num": 304}}}
    assert len(parsed) == 2


@pytest.mark.parametrize("damage", [b"", b"\x00", b"N", None, b"i\x01\x00\x00\x00"], ids=str)
def test_what_is_not_whole_is_done_without(file: Path, tmp_path: Path, damage: bytes | None) -> None:
    expected = packaged_document(file.name)
    (path,) = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:40] if damage is None else damage)
    assert packaged_document(file.name) == expected
    assert packaged_document(file.name) == expected


def test_nothing_is_kept_of_a_file_with_mistakes(file: Path, tmp_path: Path) -> None:
    file.write_text("archs: {a: 1, a: 2}\n")
    for _ in range(2):
        assert "duplicate key" in packaged_document(file.name)[1][0].message
    assert kept(tmp_path) == []


def test_nothing_is_written_where_python_may_not_write(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    packaged_document(file.name)
    assert kept(tmp_path) == []
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "compiled").write_text("a file where a folder should be")
    assert packaged_document(file.name)[0].value == {"archs": {"gfx950": {"cu_num": 256}}}


def test_a_value_that_cannot_be_kept_is_read_each_time(file: Path, parsed: list[str], tmp_path: Path) -> None:
    file.write_text("archs: {seen: 2026-01-02}\n")
    assert packaged_document(file.name) == packaged_document(file.name)
    assert len(parsed) == 2
    assert kept(tmp_path) == []


def test_a_book_without_problems_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "compiled"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    compared: list[Book] = []
    problems: list[Problem] = []

    def counted(book: Book) -> list[Problem]:
        compared.append(book)
        return problems

    monkeypatch.setattr("preshuffle.registry.lint.book.lint", counted)
    book = load_book()
    assert [lint_packaged(book) for _ in range(3)] == [[], [], []]
    assert len(compared) == 1
    monkeypatch.setattr(book_cache, "_code", lambda _: iter(["another code"]))
    problems.append(Problem("book/rules.yaml", 1, 1, "a problem"))
    assert [lint_packaged(book) for _ in range(2)] == [problems, problems]
    assert len(compared) == 3


def test_without_compiled_modules_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "compiled"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert lint_packaged(load_book()) == []
    assert kept(tmp_path) == []
