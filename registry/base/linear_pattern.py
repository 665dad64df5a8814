"""Regular expressions from data, matched in linear time.

Python's ``re`` backtracks: some patterns take time cubic or exponential in the text. Whether a text matches is decided
by the automata of Rust's ``regex``, which pydantic has built in; look-around and back-references do not exist there.
What named groups hold is found by a search of ``re``'s parse tree that visits no pair of instruction and position
twice (as RE2's bit-state matcher does), so it takes at most their product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from re import IGNORECASE, _parser, error
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic_core import SchemaError, SchemaValidator, core_schema

MAX_PATTERN: Final = 2000
"""Characters of a pattern."""
MAX_TEXT: Final = 1024
"""Characters of a text; nothing longer matches."""
_MAX_STEPS: Final = 5000
"""Instructions of a pattern whose groups are read."""

Accepts = Callable[[str], bool]
_CATEGORIES: Final[dict[str, Accepts]] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_NOT_DIGIT": lambda char: not char.isdecimal(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda char: not char.isspace(),
    "CATEGORY_WORD": lambda char: char.isalnum() or char == "_",
    "CATEGORY_NOT_WORD": lambda char: not (char.isalnum() or char == "_"),
}


class PatternSyntaxError(ValueError):
    """Text that is no regular expression at all."""


class LinearPattern:
    """A compiled pattern of the book, an overlay or a configuration.

    Raises:
        ValueError: the pattern is too long or too large, or needs what cannot be matched in linear time.

    Example:
        >>> LinearPattern("(a+)+b").matches("a" * 500), LinearPattern("(a+)+b").matches("aab")
        (False, True)
        >>> LinearPattern(r"t(?P<m>[0-9]+)x.*").groups("t32x64")
        {'m': '32'}
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        """Compile for whole texts; ``starts`` compiles for their beginnings when first used."""
        self.pattern = pattern
        if len(pattern) > MAX_PATTERN:
            raise ValueError(f"a pattern has at most {MAX_PATTERN} characters, found {len(pattern)}: {pattern[:60]!r}…")
        try:
            self._tree = _parser.parse(pattern)
        except (error, RecursionError, OverflowError) as found:
            raise PatternSyntaxError(f"{_cut(pattern)} is not a regular expression: {found}") from None
        self._inner = f"(?{'i' if ignore_case else ''}:{pattern})"
        self._matches = self._compiled(rf"\A{self._inner}\z").isinstance_python

    def matches(self, text: str) -> bool:
        """Return whether the whole text matches."""
        return len(text) <= MAX_TEXT and self._matches(text)

    def starts(self, text: str) -> bool:
        """Return whether the text begins with a match."""
        return len(text) <= MAX_TEXT and self._starts(text)

    @cached_property
    def _starts(self) -> Accepts:
        return self._compiled(rf"\A{self._inner}").isinstance_python

    def _compiled(self, expression: str) -> SchemaValidator:
        try:
            return SchemaValidator(core_schema.str_schema(pattern=expression))
        except SchemaError as found:
            reason = str(found).rsplit("error: ", 1)[-1].rsplit("SchemaError: ", 1)[-1].strip().rstrip(".")
            raise ValueError(f"{_cut(self.pattern)} is no pattern of the linear-time engine: {reason}") from None

    @cached_property
    def program(self) -> _Program:
        """Instructions that find the groups.

        Raises:
            ValueError: there are too many, or some that have no meaning here.
        """
        return _Program(self.pattern, self._tree)

    def groups(self, text: str) -> dict[str, str] | None:
        """Return the text of each named group; None without a match.

        A group that took no part is ``""``.
        """
        return self.program.run(text) if self.matches(text) else None


@lru_cache(maxsize=1024)
def linear_pattern(pattern: str, *, ignore_case: bool = False) -> LinearPattern:
    """Return a compiled pattern from a cache.

    Raises:
        ValueError: it cannot be matched in linear time.
    """
    return LinearPattern(pattern, ignore_case=ignore_case)


def _accepted(text: str) -> str:
    linear_pattern(text)
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN), AfterValidator(_accepted)]
"""Field of an entry that holds a pattern."""


class _Program:
    """Instructions ``(kind, argument, argument)`` of one pattern, in the order of ``re``'s preferences."""

    def __init__(self, pattern: str, tree: Any) -> None:
        if tree.state.flags & IGNORECASE:
            raise ValueError(f"{_cut(pattern)}: flags are not allowed in a grammar")
        self.names: dict[str, int] = tree.state.groupdict
        self._pattern = pattern
        self._steps: list[tuple[Any, ...]] = []
        self._sequence(tree)
        self._emit("end")

    def _emit(self, *step: Any) -> int:
        if len(self._steps) >= _MAX_STEPS:
            raise ValueError(f"{_cut(self._pattern)} has more than {_MAX_STEPS} steps")
        self._steps.append(step)
        return len(self._steps) - 1

    def _sequence(self, items: Any) -> None:
        for kind, argument in items:
            self._item(str(kind), argument)

    def _item(self, kind: str, argument: Any) -> None:
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            self._emit("one", _accepts(kind, argument))
        elif kind == "AT":
            self._emit("at", str(argument))
        elif kind == "SUBPATTERN":
            number, added, _, inside = argument
            if added:
                raise ValueError(f"{_cut(self._pattern)}: flags are not allowed in a grammar")
            self._emit("save", (number, 0))
            self._sequence(inside)
            self._emit("save", (number, 1))
        elif kind == "BRANCH":
            self._branch(argument[1])
        elif kind in ("MAX_REPEAT", "MIN_REPEAT"):
            self._repeat(*argument, greedy=kind == "MAX_REPEAT")
        else:
            raise ValueError(f"{_cut(self._pattern)}: {kind.lower()} is not allowed in a grammar")

    def _branch(self, options: Any) -> None:
        ends = []
        for option in options[:-1]:
            split = self._emit("split")
            self._sequence(option)
            ends.append(self._emit("jump"))
            self._steps[split] = ("split", split + 1, len(self._steps))
        self._sequence(options[-1])
        for end in ends:
            self._steps[end] = ("jump", len(self._steps))

    def _repeat(self, least: int, most: Any, inside: Any, *, greedy: bool) -> None:
        for _ in range(least):
            self._sequence(inside)
        if str(most) == "MAXREPEAT":
            split = self._emit("split")
            self._sequence(inside)
            self._emit("jump", split)
            self._fork(split, greedy)
            return
        splits = []
        for _ in range(most - least):
            splits.append(self._emit("split"))
            self._sequence(inside)
        for split in splits:
            self._fork(split, greedy)

    def _fork(self, split: int, greedy: bool) -> None:
        inside, behind = split + 1, len(self._steps)
        self._steps[split] = ("split", inside, behind) if greedy else ("split", behind, inside)

    def run(self, text: str) -> dict[str, str] | None:  # noqa: C901 - one case per instruction
        """Return the named groups of the match that ``re.fullmatch`` prefers."""
        steps, end = self._steps, len(text)
        seen: set[tuple[int, int]] = set()
        waiting: list[tuple[int, int, Any]] = [(0, 0, None)]
        while waiting:
            at, position, saved = waiting.pop()
            while (at, position) not in seen:
                seen.add((at, position))
                kind, *arguments = steps[at]
                at += 1
                if kind == "one":
                    if position == end or not arguments[0](text[position]):
                        break
                    position += 1
                elif kind == "split":
                    at = arguments[0]
                    waiting.append((arguments[1], position, saved))
                elif kind == "jump":
                    at = arguments[0]
                elif kind == "save":
                    saved = (arguments[0], position, saved)
                elif kind == "at":
                    if not _is_at(arguments[0], text, position):
                        break
                elif position == end:
                    return self._named(text, saved)
                else:
                    break
        return None

    def _named(self, text: str, saved: Any) -> dict[str, str]:
        places: dict[tuple[int, int], int] = {}
        while saved is not None:
            place, position, saved = saved
            places.setdefault(place, position)  # the last time round a loop counts
        return {
            name: text[places[number, 0] : places[number, 1]] if (number, 1) in places else ""
            for name, number in self.names.items()
        }


def _accepts(kind: str, argument: Any) -> Accepts:
    """Return the test of one character."""
    if kind == "ANY":
        return lambda char: char != "\n"
    if kind == "LITERAL":
        return chr(argument).__eq__
    if kind == "NOT_LITERAL":
        return chr(argument).__ne__
    negated = False
    tests: list[Accepts] = []
    for part, value in argument:
        if str(part) == "NEGATE":
            negated = True
        elif str(part) == "RANGE":
            tests.append(partial(_between, *map(chr, value)))
        else:
            tests.append(_CATEGORIES[str(value)] if str(part) == "CATEGORY" else chr(value).__eq__)
    return lambda char: any(test(char) for test in tests) is not negated


def _between(low: str, high: str, char: str) -> bool:
    return low <= char <= high


def _is_at(place: str, text: str, position: int) -> bool:
    if place in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
        return position == 0
    if place in ("AT_END", "AT_END_STRING"):
        return position == len(text)
    word = _CATEGORIES["CATEGORY_WORD"]
    inside = [word(char) for char in (text[position - 1 : position] if position else "", text[position : position + 1])]
    return (inside[0] != inside[1]) is (place == "AT_BOUNDARY")


def _cut(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 200 else pattern[:200] + "…")
