"""Reader of JSON or YAML input with positions for errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from preshuffle.registry.base.errors import BookError, FieldProblem, QueryError
from preshuffle.registry.text import Document, parse_json

STDIN = "-"


def read_document(path: str, what: str = "a mapping of query fields") -> Document:
    """Parse a JSON or YAML file that holds one mapping.

    ``-`` is standard input; ``what`` names the kind of mapping in messages.

    Raises:
        QueryError: the file cannot be read or is no mapping.
        BookError: the text is neither JSON nor YAML; the message has line and column.
    """
    from preshuffle.registry.text import parse_yaml

    name = "<stdin>" if path == STDIN else path
    text = _text(path, name)
    try:
        document, problems = parse_yaml(text, name)
    except AttributeError:  # PyYAML's own, on !!timestamp with other text
        raise QueryError([FieldProblem(name, "a value cannot be read: it is not what its tag says")]) from None
    value = document.value
    if text.lstrip()[:1] == "{" and not any("duplicate" in problem.message for problem in problems):
        try:  # JSON is nearly YAML; where they differ (tabs, surrogate pairs), JSON has the say
            value, problems = parse_json(text), []
        except (ValueError, RecursionError):
            pass
    if problems:
        raise BookError(problems)
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise QueryError([FieldProblem(name, f"{what} is needed, found {found}")])
    return Document(name, value, document.text, document.find)


def place_of(document: Document, field: str) -> str:
    """Return ``file:line:column: field`` for a dotted field path of a document."""
    path: tuple[str | int, ...] = tuple(int(part) if part.isdigit() else part for part in field.split("."))
    problem = document.problem(path, "")
    return f"{problem.file}:{problem.line}:{problem.column}: {field}"


def _text(path: str, name: str) -> str:
    data: Any
    try:
        data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
        return bytes(data).decode("utf-8-sig")
    except OSError as error:
        raise QueryError([FieldProblem(name, f"cannot be read: {error.strerror or error}")]) from None
    except UnicodeDecodeError as error:
        raise QueryError([FieldProblem(name, f"not UTF-8 at byte {error.start}")]) from None
    except ValueError as error:
        raise QueryError([FieldProblem(repr(name), f"cannot be read: {error}")]) from None
