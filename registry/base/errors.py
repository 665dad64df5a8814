"""Every error that preshuffle raises on purpose: one clear message that says what was found and what is valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PreshuffleError(Exception):
    """Base of all errors of this project. Its text is meant for people and never needs a traceback."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the book: where it stands, what was found, what would be valid."""

    file: str
    line: int
    column: int
    message: str
    valid: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return ``file:line:column: message; valid: …``."""
        tail = f"; valid: {', '.join(self.valid)}" if self.valid else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{tail}"


class BookError(PreshuffleError, ValueError):
    """The book (or an overlay) does not load; ``problems`` lists everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems in the order of the files."""
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        """Return one line per problem."""
        return "\n".join(map(str, self.problems))


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field of an input that is wrong: its path, what was found, what would be valid."""

    field: str
    message: str
    valid: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return ``field: message; valid: …``."""
        tail = f"; valid: {', '.join(self.valid)}" if self.valid else ""
        return f"{self.field}: {self.message}{tail}"


class PlacedError(ValueError):
    """A value that a validator refuses, with its path inside the entry that is validated."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        """Keep the path."""
        self.path = path
        super().__init__(message)


class QueryError(PreshuffleError, ValueError):
    """A query or an observation is not well formed; ``problems`` names each field."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        """Keep the problems in the order of the fields."""
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        """Return one line per problem."""
        return "\n".join(map(str, self.problems))


@dataclass(frozen=True, slots=True)
class NearMatch:
    """A rule that did not match, and what it would have needed."""

    rule: str
    recipe: str
    why_not: str


class NoRecipeError(PreshuffleError, LookupError):
    """No rule answers this query. The registry never guesses: the nearest matches and what is missing are named.

    Attributes:
        nearest: the rules that are nearest to the query.
        missing: fields that the query must say.
        rule: the rule that says that nothing works, where it is known that nothing does.
        evidence: that rule's evidence.
    """

    def __init__(
        self,
        message: str,
        nearest: Sequence[NearMatch] = (),
        missing: Sequence[str] = (),
        *,
        rule: str | None = None,
        evidence: Sequence[str] = (),
    ) -> None:
        """Build the text from the message, the nearest rules and the evidence."""
        self.message = message
        self.nearest = tuple(nearest)
        self.missing = tuple(missing)
        self.rule = rule
        self.evidence = tuple(evidence)
        lines = [message]
        lines += [f"  nearest: {near.rule} -> {near.recipe}: {near.why_not}" for near in self.nearest]
        lines += [f"  evidence: {url}" for url in self.evidence]
        super().__init__("\n".join(lines))


class LayoutError(PreshuffleError, ValueError):
    """A layout, a shape or a tensor does not fit: nothing was moved."""
