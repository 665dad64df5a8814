"""YAML with places: every value can be found again by file, line and column, so that an error can point at it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from preshuffle.registry.errors import FieldProblem, Problem

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR, _BOOL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:bool"
_TAGS: dict[type[Node], str] = {MappingNode: "tag:yaml.org,2002:map", SequenceNode: "tag:yaml.org,2002:seq"}
_MAX_NODES = 200_000
_MAX_DEPTH = 64

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML file: plain values, and its text, in which the place of any of them is looked up when needed."""

    name: str
    value: Any
    text: str

    def mark(self, path: Path) -> tuple[int, int] | None:
        """Return the line and column of the key or item at a path, counted from 1; None where it is not there."""
        node = _root(self.text)
        at = node
        for part in path:
            found = _child(node, part)
            if found is None:
                return None
            at, node = found
        return None if at is None else (at.start_mark.line + 1, at.start_mark.column + 1)

    def line(self, path: Path) -> int:
        """Return the line of a path, or of its nearest parent that is there."""
        return self.problem(path, "").line

    def problem(self, path: Path, message: str, valid: tuple[str, ...] = ()) -> Problem:
        """Return a problem at a path; where the path itself is not in the file, at its nearest parent."""
        marks = (self.mark(path[:end]) for end in range(len(path), -1, -1))
        line, column = next((mark for mark in marks if mark is not None), (1, 1))
        return Problem(self.name, line, column, message, valid)


def parse_yaml(text: str, name: str) -> tuple[Document, list[Problem]]:
    """Parse one YAML (or JSON) text; what is wrong comes back as problems, with whatever could be read.

    Anchors and aliases are refused: a few lines of them can stand for gigabytes.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        builder = _Builder(name, loader, aliases="&" in text)
        value = None if node is None else builder.build(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        line, column = (mark.line + 1, mark.column + 1) if mark else _odd_character(text, error)
        return Document(name, None, ""), [Problem(name, line, column, f"not valid YAML: {what}")]
    finally:
        loader.dispose()
    return Document(name, value, text), builder.problems


@lru_cache(maxsize=8)
def _root(text: str) -> Node | None:
    """Return the nodes of a text that has been parsed before (so it can be), or None where it is empty."""
    loader = _Loader(text)
    try:
        return loader.get_single_node()  # type: ignore[no-any-return]
    finally:
        loader.dispose()


def _child(node: Node | None, part: str | int) -> tuple[Node, Node] | None:
    """Return what marks a child (its key, or the item itself) and the child."""
    if isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        item: Node = node.value[part]
        return item, item
    return None


@lru_cache(maxsize=4096)
def _implicit_tag(text: str) -> str:
    """Return the tag of a plain scalar; a book says the same few thousand words over and over."""
    for tag, pattern in _BASE.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return str(tag)
    return _STR


def _odd_character(text: str, error: yaml.YAMLError) -> tuple[int, int]:
    """Return where the character stands that the reader refused: it says which one, and no place."""
    at = text.find(chr(getattr(error, "character", 0)))
    return (1, 1) if at < 0 else (text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))


class _Loader(_BASE):  # type: ignore[misc]
    """Builds nodes in one pass, and refuses too many and too deep ones on the way: depth recurses in C."""

    def __init__(self, text: str) -> None:
        """Start at the top."""
        super().__init__(text)
        self.depth = self.count = 0

    def descend_resolver(self, parent: Node | None, index: Any) -> None:
        """Go into a node."""
        self.depth += 1
        self.count += 1
        if self.depth > _MAX_DEPTH + 1:  # a value inside the first collection that is too deep
            self._refuse(f"nested deeper than {_MAX_DEPTH}", parent)
        if self.count > _MAX_NODES:
            self._refuse(f"more than {_MAX_NODES} values", parent)

    def ascend_resolver(self) -> None:
        """Come out of a node."""
        self.depth -= 1

    def resolve(self, kind: type[Node], value: str | None, implicit: Any) -> str:
        """Return the tag of a node that has none of its own."""
        if kind is ScalarNode:
            return _implicit_tag(value or "") if implicit[0] else _STR
        return _TAGS[kind]

    def _refuse(self, what: str, parent: Node | None) -> None:
        raise yaml.MarkedYAMLError(problem=what, problem_mark=parent.start_mark if parent else None)


class _Builder:
    """Makes plain values of nodes."""

    def __init__(self, name: str, loader: Any, aliases: bool) -> None:
        self.name = name
        self.loader = loader
        self.problems: list[Problem] = []
        self.seen: set[int] | None = set() if aliases else None
        self.known: dict[tuple[str, str], Any] = {}

    def build(self, node: Node) -> Any:
        if self.seen is not None:
            if id(node) in self.seen:
                self._complain(node, "aliases are not allowed; write the value out")
                return None
            self.seen.add(id(node))
        kind = type(node)
        if kind is ScalarNode:
            return node.value if node.tag == _STR else self._scalar(node)
        return self._mapping(node) if kind is MappingNode else [self.build(item) for item in node.value]

    def _scalar(self, node: Node) -> Any:
        if node.tag == _BOOL and node.value.lower() not in {"true", "false"}:
            return node.value  # YAML 1.1 reads No, on and yes as booleans; No is one of AITER's quant_types
        key = (node.tag, node.value)
        if key not in self.known:
            try:
                self.known[key] = self.loader.construct_object(node)
            except (ValueError, KeyError, AttributeError):  # a date that is none, or !!int, !!bool on other text
                self._complain(node, f"{_short(node.value)} is not a valid {node.tag.rsplit(':')[-1]}")
                return None
        return self.known[key]

    def _mapping(self, node: Node) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if type(key_node) is not ScalarNode or key == "<<":
                self._complain(key_node, "a key must be plain text")
                continue
            if key in result:
                self._complain(key_node, f"duplicate key {key!r}, first at line {lines[key]}")
                continue
            lines[key] = key_node.start_mark.line + 1
            result[key] = self.build(value_node)
        return result

    def _complain(self, node: Node, message: str) -> None:
        self.problems.append(Problem(self.name, node.start_mark.line + 1, node.start_mark.column + 1, message))


def field_problems(error: ValidationError) -> list[tuple[Path, FieldProblem]]:
    """Turn pydantic's errors into one plain sentence per field, with what would be valid."""
    found: list[tuple[Path, FieldProblem]] = []
    for item in error.errors(include_url=False):
        context = item.get("ctx", {})
        path: Path = (*item["loc"], *getattr(context.get("error"), "path", ()))
        if item["type"] == "too_short" and any(other[: len(path)] == path for other, _ in found):
            continue  # pydantic counts the items that it could read; the ones it could not are named already
        valid: tuple[str, ...] = ()
        kind = item["type"]
        if kind == "extra_forbidden":
            message = "unknown field"
        elif kind == "missing":
            message = "missing"
        elif kind == "literal_error":
            message = f"{_short(item['input'])} is not one of the valid values"
            valid = tuple(part.strip(" '") for part in str(context["expected"]).replace(" or ", ", ").split(","))
        elif kind == "value_error":
            message = str(context.get("error", item["msg"]))
        else:
            text = item["msg"]
            message = f"{text[:1].lower()}{text[1:]}, found {_short(item['input'])}"
        found.append((path, FieldProblem(".".join(str(part) for part in path) or "(whole)", message, valid)))
    return found


def _short(value: Any) -> str:
    try:
        shown = repr(value)
    except ValueError:  # Python does not write out integers of thousands of digits
        shown = "a number of thousands of digits"
    return shown if len(shown) < 80 else shown[:77] + "..."
