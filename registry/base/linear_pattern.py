"""Regular expressions from data, matched in linear time by RE2.

Python's ``re`` backtracks: some patterns take time cubic or exponential in the text. RE2 has no look-around and no
back-references; its ``\\d`` and ``\\w`` are ASCII's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Final

import re2
from pydantic import AfterValidator, Field

MAX_PATTERN: Final = 2000
"""Characters of a pattern."""
MAX_TEXT: Final = 1024
"""Characters of a text; nothing longer matches."""
_MAX_MEMORY: Final = 1 << 17
"""Bytes that a compiled pattern and its automata may take."""


class PatternSyntaxError(ValueError):
    """Text that is no regular expression at all."""


class LinearPattern:
    """A compiled pattern of the book, an overlay or a configuration.

    Raises:
        PatternSyntaxError: the text is no regular expression.
        ValueError: the pattern is too long or too large, or needs what cannot be matched in linear time.

    Example:
        >>> LinearPattern("(a+)+b").matches("a" * 500), LinearPattern("(a+)+b").matches("aab")
        (False, True)
        >>> LinearPattern(r"t(?P<m>[0-9]+)x.*").groups("t32x64")
        {'m': '32'}
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        """Compile a pattern."""
        if len(pattern) > MAX_PATTERN:
            raise ValueError(f"a pattern has at most {MAX_PATTERN} characters, found {len(pattern)}: {pattern[:60]!r}…")
        options = re2.Options()
        options.case_sensitive, options.log_errors, options.max_mem = not ignore_case, False, _MAX_MEMORY
        try:
            self._compiled = re2.compile(pattern, options)
        except re2.error as found:
            raise _refusal(pattern, found) from None

    def matches(self, text: str) -> bool:
        """Return whether the whole text matches."""
        return len(text) <= MAX_TEXT and self._compiled.fullmatch(text) is not None

    def starts(self, text: str) -> bool:
        """Return whether the text begins with a match."""
        return len(text) <= MAX_TEXT and self._compiled.match(text) is not None

    @property
    def size(self) -> int:
        """Instructions of the compiled pattern.

        A match takes at most one step for each of them and each character.
        """
        return int(self._compiled.programsize)

    @property
    def names(self) -> tuple[str, ...]:
        """The named groups."""
        return tuple(self._compiled.groupindex)

    def groups(self, text: str) -> dict[str, str] | None:
        """Return the text of each named group; None without a match.

        A group that took no part is ``""``.
        """
        match = self._compiled.fullmatch(text) if len(text) <= MAX_TEXT else None
        return None if match is None else {name: part or "" for name, part in match.groupdict().items()}


def _refusal(pattern: str, found: Exception) -> ValueError:
    """Return the error for a pattern that RE2 refuses."""
    shown = repr(pattern if len(pattern) <= 200 else pattern[:200] + "…")
    reason = found.args[0] if found.args else found
    reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return PatternSyntaxError(f"{shown} is not a regular expression: {reason}")
    return ValueError(
        f"{shown} cannot be matched in linear time (no look-around, no back-references, no large repetition): {reason}"
    )


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
