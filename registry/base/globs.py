"""Globs of names, matched and compared in linear time.

``*`` is any text and ``?`` is any character. Where the book allows them, brackets mean what they mean to ``fnmatch``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Annotated, Final

from pydantic import Field

from preshuffle.registry.base.linear_pattern import linear_pattern

MAX_GLOB: Final = 128
"""Characters of a glob."""
_WILDCARDS: Final = frozenset("*?[")
_STARS: Final = re.compile(r"\*{2,}")
_BRACKETS: Final = re.compile(r"\[(?P<negated>!?+)(?P<chars>.[^\]]*)\]", re.DOTALL)
_NOTHING: Final = r"[^\x{0}-\x{10ffff}]"
_LITERAL: Final = re.compile(r"[^*?\[]*")

Glob = Annotated[str, Field(max_length=MAX_GLOB)]
"""Field of an entry that holds a name or a glob."""


def is_glob(text: str) -> bool:
    """Return whether a text has wildcards.

    Example:
        >>> is_glob("*/gpt-oss"), is_glob("gpt-oss")
        (True, False)
    """
    return not _WILDCARDS.isdisjoint(text)


def glob_test(glob: str) -> Callable[[str], bool]:
    """Compile a glob into a function of a text.

    Example:
        >>> glob_test("a*b?")("a-b-"), glob_test("a*b")("ab-")
        (True, False)
    """
    if "?" in glob or "[" in glob:
        return lambda text: _compiled(glob)(text)
    head, *middle = glob.split("*")
    if not middle:
        return glob.__eq__
    tail, shortest = middle.pop(), len(glob) - glob.count("*")
    if not any(middle):
        return lambda text: len(text) >= shortest and text.startswith(head) and text.endswith(tail)
    return lambda text: len(text) >= shortest and _in_turn(text, head, middle, tail)


def _in_turn(text: str, head: str, middle: list[str], tail: str) -> bool:
    """Whether a text begins and ends so, and has the other parts in turn between."""
    if not (text.startswith(head) and text.endswith(tail)):
        return False
    at, end = len(head), len(text) - len(tail)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> Callable[[str], bool]:
    return linear_pattern(f"(?s){pattern_of_glob(glob)}").matches


def pattern_of_glob(glob: str) -> str:
    r"""Return the regular expression (flag ``s``) of a glob.

    Brackets mean what they mean to ``fnmatch``.

    Example:
        >>> pattern_of_glob("a?[!0-9]*") == r"\x{61}.[^\x{30}-\x{39}].*"
        True
    """
    wildcards, parts, at = {"*": ".*", "?": "."}, [], 0
    glob = _STARS.sub("*", glob) if "[" not in glob else glob
    while at < len(glob):
        char, end = glob[at], at + 1
        if char == "[":
            closing = _BRACKETS.match(glob, at)
            end = closing.end() if closing else end
            parts.append(_set_of(closing["negated"], closing["chars"]) if closing else _escaped(char))
        else:
            parts.append(wildcards.get(char) or _escaped(char))
        at = end
    return "".join(parts)


def _set_of(negated: str, chars: str) -> str:
    """Return a class of characters; ``a-c`` is a range, and one that is empty matches nothing."""
    ranges, at = [], 0
    while at < len(chars):
        if chars[at + 1 : at + 2] == "-" and at + 2 < len(chars):
            if chars[at] <= chars[at + 2]:
                ranges.append(f"{_escaped(chars[at])}-{_escaped(chars[at + 2])}")
            at += 3
        else:
            ranges.append(_escaped(chars[at]))
            at += 1
    if not ranges:
        return "." if negated else _NOTHING
    return f"[{'^' if negated else ''}{''.join(ranges)}]"


def _escaped(char: str) -> str:
    return f"\\x{{{ord(char):x}}}"


def literal_prefix(glob: str) -> str:
    """Return a glob's text before its first wildcard."""
    return _LITERAL.match(glob)[0]  # type: ignore[index]


@lru_cache(maxsize=4096)
def _prepared(glob: str) -> tuple[str, str, str]:
    """Return a glob without stars in a row, its literal prefix and its literal suffix."""
    glob = _STARS.sub("*", glob)
    return glob, literal_prefix(glob), literal_prefix(glob[::-1])[::-1]


def globs_overlap(left: str, right: str) -> bool:
    """Whether some text matches both globs (``*`` and ``?``).

    Example:
        >>> globs_overlap("a*", "*b"), globs_overlap("a*", "b*")
        (True, False)
    """
    left, left_head, left_tail = _prepared(left)
    right, right_head, right_tail = _prepared(right)
    length = min(len(left_head), len(right_head))
    if left_head[:length] != right_head[:length]:
        return False
    length = min(len(left_tail), len(right_tail))
    if left_tail[len(left_tail) - length :] != right_tail[len(right_tail) - length :]:
        return False
    return _walk(left, right)


@lru_cache(maxsize=512)
def _places(glob: str) -> dict[str, int]:
    """Return the places of each character of a glob, as bits; ``""`` has all that are no star."""
    places: dict[str, int] = {"*": 0, "?": 0, "": 0}
    for index, char in enumerate(glob):
        for key in (char,) if char == "*" else (char, ""):
            places[key] = places.get(key, 0) | 1 << index
    return places


def _walk(left: str, right: str) -> bool:
    """Walk through both globs at once; of the right one all places that can be reached are one number's bits."""
    places = _places(right)
    stars, characters, end = places["*"], places[""], 1 << len(right)

    def step(reached: int, char: str) -> int:
        reached |= (reached & stars) << 1
        if char == "*":
            return -(reached & -reached) & (2 * end - 1)  # every place from the first one on
        fitting = characters if char == "?" else places.get(char, 0) | places["?"]
        return (reached & fitting) << 1 | reached & stars

    reached = reduce(step, left, 1)
    return bool((reached | (reached & stars) << 1) & end)
