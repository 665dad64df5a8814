"""Render a Helm chart that keeps to a small part of Go's templates.

Known: ``.Values`` paths, ``$`` variables, ``if``/``else``/``end``, ``range`` over lists and mappings, ``define`` and
``include``, and pipelines of ``default``, ``quote``, ``toYaml`` and ``nindent``, with ``{{-`` and ``-}}``. Anything
else is an error, so that a chart which renders here needs nothing else of helm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_TOKEN = re.compile(r"""(?P<text>[^{]+|\{(?!\{))|(?P<action>\{\{.*?\}\})""", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s|]+|\|')


class ChartError(Exception):
    """A template has something that is not known here, or names a value that there is not."""


@dataclass
class Block:
    """A text, an action, or a block with what is inside it."""

    kind: str
    words: list[str] = field(default_factory=list)
    text: str = ""
    inside: list[Block] = field(default_factory=list)
    other: list[Block] = field(default_factory=list)


@dataclass
class Scope:
    """What ``.``, ``$`` and variables mean."""

    dot: Any
    root: Any
    names: dict[str, Any] = field(default_factory=dict)


def render(chart: Path, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the objects of a chart under its default values, with some replaced.

    Raises:
        ChartError: a template has something that is not known here.
    """
    given = merged(yaml.safe_load((chart / "values.yaml").read_text()), values or {})
    root = {"Values": given}
    defined: dict[str, list[Block]] = {}
    files = {path: parse(path.read_text()) for path in sorted((chart / "templates").iterdir())}
    for blocks in files.values():
        defined.update({block.words[0]: block.inside for block in blocks if block.kind == "define"})
    texts = (show(blocks, Scope(root, root), defined) for path, blocks in files.items() if path.suffix == ".yaml")
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def merged(base: Any, over: Any) -> Any:
    """Return values with others on top, mappings merged key by key, as helm does."""
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    return {**base, **{key: merged(base[key], value) if key in base else value for key, value in over.items()}}


def parse(text: str) -> list[Block]:
    """Return a template's blocks."""
    text = re.sub(r"\s*\{\{-(?=\s)", "{{", text)
    text = re.sub(r"(?<=\s)-\}\}\s*", "}}", text)
    stack: list[Block] = [Block("top")]
    into = [stack[0].inside]
    for found in _TOKEN.finditer(text):
        if found["text"] is not None:
            into[-1].append(Block("text", text=found["text"]))
            continue
        words = _WORD.findall(found["action"][2:-2].replace(",", " , "))
        if words[0] in ("if", "range", "define"):
            block = Block(words[0], [json.loads(word) if word[0] == '"' else word for word in words[1:]])
            into[-1].append(block)
            stack.append(block)
            into.append(block.inside)
        elif words == ["else"]:
            into[-1] = stack[-1].other
        elif words == ["end"]:
            if len(stack) == 1:
                raise ChartError("an end without a beginning")
            stack.pop()
            into.pop()
        else:
            into[-1].append(Block("action", words))
    if len(stack) != 1:
        raise ChartError(f"{stack[-1].kind} has no end")
    return stack[0].inside


def show(blocks: list[Block], scope: Scope, defined: Mapping[str, list[Block]]) -> str:
    """Return the text of blocks."""
    out: list[str] = []
    for block in blocks:
        if block.kind == "text":
            out.append(block.text)
        elif block.kind == "if":
            chosen = block.inside if pipeline(block.words, scope, defined) else block.other
            out.append(show(chosen, scope, defined))
        elif block.kind == "range":
            out.extend(show(block.inside, inner, defined) for inner in _each(block.words, scope, defined))
        elif block.kind == "action":
            out.append(_as_text(pipeline(block.words, scope, defined)))
    return "".join(out)


def _each(words: list[str], scope: Scope, defined: Mapping[str, list[Block]]) -> list[Scope]:
    names = []
    if ":=" in words:
        at = words.index(":=")
        names, words = [word for word in words[:at] if word != ","], words[at + 1 :]
    over = pipeline(words, scope, defined) or []
    pairs = sorted(over.items()) if isinstance(over, Mapping) else list(enumerate(over))
    return [
        Scope(value, scope.root, {**scope.names, **dict(zip(names[-2:], (key, value)[-len(names) :], strict=True))})
        if names
        else Scope(value, scope.root, scope.names)
        for key, value in pairs
    ]


def pipeline(words: list[str], scope: Scope, defined: Mapping[str, list[Block]]) -> Any:
    """Return the value of a pipeline."""
    value: tuple[Any, ...] = ()
    while True:
        end = words.index("|") if "|" in words else len(words)
        value = (_call(words[:end], value, scope, defined),)
        if end == len(words):
            return value[0]
        words = words[end + 1 :]


def _call(words: list[str], piped: tuple[Any, ...], scope: Scope, defined: Mapping[str, list[Block]]) -> Any:
    name, *rest = words
    arguments = [*(_operand(word, scope) for word in rest), *piped]
    if name == "include":
        return show(defined[arguments[0]], Scope(arguments[1], scope.root), defined)
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](*arguments)
    if rest or piped:
        raise ChartError(f"{name}: not a function that is known here ({', '.join(['include', *_FUNCTIONS])})")
    return _operand(name, scope)


def _operand(word: str, scope: Scope) -> Any:
    if word.startswith('"'):
        return json.loads(word)
    if word.isdecimal():
        return int(word)
    if word.startswith("$") and word != "$" and "." not in word:
        return scope.names[word]
    if word in (".", "$"):
        return scope.dot if word == "." else scope.root
    if not word.startswith((".", "$.")):
        raise ChartError(f"{word}: not a value that is known here")
    value = scope.root if word.startswith("$") else scope.dot
    for part in word.lstrip("$.").split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ChartError(f"{word}: no such value")
        value = value[part]
    return value


def _as_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else "" if value is None else str(value)


def _to_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=True).removesuffix("\n").removesuffix("\n...")


def _nindent(width: int, text: str) -> str:
    return "\n" + "\n".join(f"{' ' * width}{line}" if line else line for line in text.split("\n"))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "default": lambda default, value: value or default,
    "quote": lambda value: json.dumps(_as_text(value)),
    "toYaml": _to_yaml,
    "nindent": _nindent,
}
