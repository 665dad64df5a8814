"""Errors that preshuffle raises, and the problems they carry.

Each message says what was found and what is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from preshuffle.registry.base.limits import MAX_PROBLEMS, more


class PreshuffleError(Exception):
    """Base of all errors of this project.

    Its text is meant for people and never needs a traceback.
    """


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the book: place, message, valid values.

    Attributes:
        line: counted from 1; 0 where the file itself is the problem.
        column: counted from 1, or 0.
        count: of mistakes that it stands for; 0 for an unknown number.
    """

    file: str
    line: int
    column: int
    message: str
    valid: tuple[str, ...] = ()
    count: int = 1

    def __str__(self) -> str:
        """Return ``file:line:column: message; valid: …``."""
        return f"{self.place}: {self.message}{valid_text(self.message, self.valid)}"

    @property
    def place(self) -> str:
        """``file:line:column``, or the file alone."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


def valid_text(message: str, valid: Sequence[str]) -> str:
    """Return a message's end with the valid values.

    Empty where it names them already.
    """
    named = message.endswith("?") and all(value in message for value in valid)
    return f"; valid: {', '.join(valid)}" if valid and not named else ""


class BookError(PreshuffleError, ValueError):
    """Book or overlay that does not load; ``problems`` lists every mistake.

    Of more than ``MAX_PROBLEMS`` it has the first, and one that says how many more there are.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems in the order of the files."""
        self.problems = tuple(problems)
        if len(problems) > MAX_PROBLEMS:
            first, counts = problems[MAX_PROBLEMS], [problem.count for problem in problems[MAX_PROBLEMS:]]
            message = more(sum(counts), "problems") if all(counts) else "and more problems"
            rest = Problem(first.file, first.line, first.column, message, count=sum(counts) if all(counts) else 0)
            self.problems = (*problems[:MAX_PROBLEMS], rest)
        super().__init__(self.problems)

    def __str__(self) -> str:
        """Return one line per problem."""
        return "\n".join(map(str, self.problems))


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field of an input: path, message, valid values.

    Attributes:
        lines: what the reader may paste to go on, shown below the message.
    """

    field: str
    message: str
    valid: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return ``field: message; valid: …``, and the lines below it, indented."""
        tail = f"; valid: {', '.join(self.valid)}" if self.valid else ""
        return "\n  ".join([f"{self.field}: {self.message}{tail}", *self.lines])


class PlacedError(ValueError):
    """Validation error with the path of the value inside its entry."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        """Keep the path."""
        self.path = path
        super().__init__(message)


def first_problems(problems: Sequence[FieldProblem]) -> tuple[FieldProblem, ...]:
    """Return the first ``MAX_PROBLEMS``, and how many more there are."""
    if len(problems) <= MAX_PROBLEMS + 1:  # the last one may be the count of those that are left out already
        return tuple(problems)
    rest = FieldProblem("(whole)", more(len(problems) - MAX_PROBLEMS, "problems"))
    return (*problems[:MAX_PROBLEMS], rest)


class QueryError(PreshuffleError, ValueError):
    """Malformed query or observation; ``problems`` names each field.

    Of more than ``MAX_PROBLEMS`` it has the first, and one that says how many more there are.
    """

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        """Keep the problems in the order of the fields."""
        self.problems = first_problems(problems)
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
    """No recipe for the query; names nearest rules and missing facts.

    The registry never guesses.

    Attributes:
        nearest: the rules that are nearest to the query.
        missing: fields that the query must say.
        rule: the rule that says that nothing works, where it is known that nothing does.
        evidence: that rule's evidence.
        why: the reason alone, without the query that it is for; the message where there is no shorter one.
    """

    def __init__(
        self,
        message: str,
        nearest: Sequence[NearMatch] = (),
        missing: Sequence[str] = (),
        *,
        rule: str | None = None,
        evidence: Sequence[str] = (),
        why: str | None = None,
    ) -> None:
        """Build the text from the message, the nearest rules and the evidence."""
        self.message = message
        self.nearest = tuple(nearest)
        self.missing = tuple(missing)
        self.rule = rule
        self.evidence = tuple(evidence)
        self.why = why or message
        lines = [message]
        lines += [f"  nearest: {near.rule} -> {near.recipe}: {near.why_not}" for near in self.nearest]
        lines += [f"  evidence: {url}" for url in self.evidence]
        super().__init__("\n".join(lines))


class LayoutError(PreshuffleError, ValueError):
    """Layout, shape or tensor that do not fit; nothing was moved."""
