"""Parser of YAML and JSON text into plain values and problems."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.nodes import ScalarNode

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.text.document import Document
from preshuffle.registry.text.field_problems import short
from preshuffle.registry.text.marks import Marks

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR, _BOOL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:bool"
_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_MAX_DIGITS = 400
_MAX_NODES = 65_536
_MAX_MISTAKES = 1000
_MAX_DEPTH = 64
_LONG = 256
_MAX_DIRECTIVES = 32


def parse_yaml(text: str, name: str) -> tuple[Document, list[Problem]]:
    """Parse one YAML or JSON text into a document and its problems.

    What could be read comes back even if something is wrong.

    Anchors and aliases are refused: a few lines of them can stand for gigabytes.
    """
    if text.count("\n%") > _MAX_DIRECTIVES:  # libyaml compares each directive with each
        message = f"not valid YAML: more than {_MAX_DIRECTIVES} lines begin with %"
        return Document(name, None, ""), [Problem(name, 1, 1, message)]
    reader = _Reader(name, text)
    try:
        value = reader.document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        message = getattr(error, "problem", None) or str(error).splitlines()[0]
        line, column = (mark.line + 1, mark.column + 1) if mark else _refused_character(text, error)
        return Document(name, None, ""), [*reader.problems, Problem(name, line, column, f"not valid YAML: {message}")]
    finally:
        reader.loader.dispose()
    return Document(name, value, text, partial(reader.marks.find, value)), reader.problems


def _implicit_tag(text: str) -> str:
    """Return the tag of a plain scalar."""
    return _tag_of(text) if len(text) < _LONG else _tag_of.__wrapped__(text)


@lru_cache(maxsize=4096)
def _tag_of(text: str) -> str:
    """Return the tag of a short scalar; cached, since a book repeats the same few thousand words."""
    for tag, pattern in _BASE.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return str(tag)
    return _STR


def _refused_character(text: str, error: yaml.YAMLError) -> tuple[int, int]:
    """Return line and column of the character that the reader refused; the error has no position."""
    index = text.find(chr(getattr(error, "character", 0)))
    return (1, 1) if index < 0 else (text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


class _Reader:
    """Builds plain values in one pass over a text's events, within limits on depth and number."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.loader = _BASE(text)
        self.problems: list[Problem] = []
        self.marks = Marks()
        self._event: Callable[[], Any] = self.loader.get_event
        self._known: dict[tuple[str, str], Any] = {}
        self._count = 0

    def document(self) -> Any:
        """Return the value of the only document; None where there is none."""
        self._event()
        if type(self._event()) is StreamEndEvent:
            return None
        event = self._event()
        self.marks.root = event.start_mark
        value = self._value(event, 0)
        self._event()
        event = self._event()
        if type(event) is not StreamEndEvent:
            raise yaml.MarkedYAMLError(problem="a second document begins here", problem_mark=event.start_mark)
        return value

    def _value(self, event: Any, depth: int) -> Any:
        self._count += 1
        if self._count > _MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {_MAX_NODES} values", problem_mark=event.start_mark)
        kind = type(event)
        if kind is ScalarEvent:
            tag = event.tag
            if tag is None or tag == "!":
                tag = _implicit_tag(event.value) if event.implicit[0] else _STR
            return event.value if tag == _STR else self._scalar(tag, event)
        if kind is AliasEvent:
            self._complain(event, "aliases are not allowed; write the value out")
            return None
        if depth == _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {_MAX_DEPTH}", problem_mark=event.start_mark)
        return self._mapping(depth + 1) if kind is MappingStartEvent else self._items(depth + 1)

    def _items(self, depth: int) -> list[Any]:
        items: list[Any] = []
        marks: list[Any] = []
        while type(event := self._event()) is not SequenceEndEvent:
            marks.append(event.start_mark)
            items.append(self._value(event, depth))
        self.marks.of_items(items, marks)
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        marks: dict[str, Any] = {}
        while (kind := type(event := self._event())) is not MappingEndEvent:
            if kind is not ScalarEvent or event.value == "<<":
                self._complain(event, "a key must be plain text")
                if kind in (MappingStartEvent, SequenceStartEvent):
                    self._value(event, depth)
                self._value(self._event(), depth)
                continue
            key = event.value
            value = self._value(self._event(), depth)
            if key in result:
                self._complain(event, f"duplicate key {short(key)}, first at line {marks[key].line + 1}")
                continue
            marks[key] = event.start_mark
            result[key] = value
        self.marks.of_items(result, marks)
        return result

    def _scalar(self, tag: str, event: Any) -> Any:
        text = event.value
        if tag == _BOOL and text.lower() not in {"true", "false"}:
            return text  # YAML 1.1 reads No, on and yes as booleans; No is one of AITER's quant_types
        if tag in _NUMBERS and ":" in text:
            return text  # YAML 1.1 reads 1:30 as the number 90, to the base 60
        if tag in _NUMBERS and len(text) > _MAX_DIGITS:
            kind = tag.rsplit(":")[-1]
            self._complain(
                event, f"{short(text)} is not a valid {kind}: {len(text):,} characters; valid: {_MAX_DIGITS}"
            )
            return None
        key = (tag, text)
        if key not in self._known:
            try:
                node = ScalarNode(tag, text, event.start_mark, event.end_mark)
                self._known[key] = self.loader.construct_object(node)
            except (ValueError, LookupError, AttributeError):  # a date that is none, or !!int, !!bool on other text
                self._complain(event, f"{short(text)} is not a valid {tag.rsplit(':')[-1]}")
                return None
        return self._known[key]

    def _complain(self, event: Any, message: str) -> None:
        mark = event.start_mark
        self.problems.append(Problem(self.name, mark.line + 1, mark.column + 1, message))
        if len(self.problems) > _MAX_MISTAKES:
            raise yaml.MarkedYAMLError(problem=f"more than {_MAX_MISTAKES} mistakes", problem_mark=mark)
