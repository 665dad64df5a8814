"""YAML with places: every value remembers its file, line and column, so that an error can point at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.events import CollectionEndEvent, CollectionStartEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from preshuffle.registry.errors import FieldProblem, Problem

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BOOL = "tag:yaml.org,2002:bool"
_MAX_NODES = 200_000
_MAX_DEPTH = 64

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML file: plain values, and the (line, column) of every key and item by its path."""

    name: str
    value: Any
    marks: dict[Path, tuple[int, int]]

    def problem(self, path: Path, message: str, valid: tuple[str, ...] = ()) -> Problem:
        """Return a problem at a path; where the path itself is not in the file, at its nearest parent."""
        known = path
        while known and known not in self.marks:
            known = known[:-1]
        line, column = self.marks.get(known, (1, 1))
        return Problem(self.name, line, column, message, valid)


def parse_yaml(text: str, name: str) -> tuple[Document, list[Problem]]:
    """Parse one YAML (or JSON) text; what is wrong comes back as problems, with whatever could be read.

    Anchors and aliases are refused: a few lines of them can stand for gigabytes.
    """
    try:
        _refuse_depth(text)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            builder = _Builder(name, loader)
            value = builder.build(node, ()) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        line, column = (mark.line + 1, mark.column + 1) if mark else _odd_character(text, error)
        return Document(name, None, {}), [Problem(name, line, column, f"not valid YAML: {what}")]
    return Document(name, value, builder.marks), builder.problems


def _refuse_depth(text: str) -> None:
    """Refuse deep nesting before nodes are built: building them recurses in C, and too deep is a crash."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > _MAX_DEPTH:
            mark: Any = event.start_mark
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {_MAX_DEPTH}", problem_mark=mark)


def _odd_character(text: str, error: yaml.YAMLError) -> tuple[int, int]:
    """Return where the character stands that the reader refused: it says which one, and no place."""
    at = text.find(chr(getattr(error, "character", 0)))
    return (1, 1) if at < 0 else (text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))


class _Builder:
    def __init__(self, name: str, loader: Any) -> None:
        self.name = name
        self.loader = loader
        self.marks: dict[Path, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.seen: set[int] = set()

    def build(self, node: Node, path: Path) -> Any:
        if id(node) in self.seen:
            self._complain(node, "aliases are not allowed; write the value out")
            return None
        self.seen.add(id(node))
        if len(self.seen) > _MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {_MAX_NODES} values", problem_mark=node.start_mark)
        self.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if node.tag == _BOOL and node.value.lower() not in {"true", "false"}:
            return node.value  # YAML 1.1 reads No, on and yes as booleans; No is one of AITER's quant_types
        try:
            return self.loader.construct_object(node)
        except (ValueError, KeyError, AttributeError):  # a date that is none, or !!int, !!float, !!bool on other text
            self._complain(node, f"{_short(node.value)} is not a valid {node.tag.rsplit(':')[-1]}")
            return None

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if key is None or key == "<<":
                self._complain(key_node, "a key must be plain text")
                continue
            if key in result:
                first = self.marks[(*path, key)]
                self._complain(key_node, f"duplicate key {key!r}, first at line {first[0]}")
                continue
            self.marks[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = self.build(value_node, (*path, key))
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
