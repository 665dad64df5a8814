"""Failures of commands with ``--json``, as RFC 9457 problem documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from preshuffle.api.commands.options.failures import MissingExtraError, UsageError
from preshuffle.registry.base.errors import BookError, NoRecipeError, PreshuffleError, QueryError

_URN: Final = "urn:preshuffle:problem:"


@dataclass(frozen=True, slots=True)
class _Kind:
    """Kind of problem; ``status`` where the HTTP API has the same."""

    name: str
    title: str
    status: int | None = None


_KINDS: Final[tuple[tuple[type[Exception], _Kind], ...]] = (
    (NoRecipeError, _Kind("no-recipe", "No recipe answers this query", 404)),
    (QueryError, _Kind("invalid-input", "The input is not valid", 422)),
    (BookError, _Kind("invalid-book", "The book does not load")),
    (MissingExtraError, _Kind("missing-extra", "Optional packages are not installed")),
    (UsageError, _Kind("invalid-command", "The command line is not valid")),
    (PreshuffleError, _Kind("failed", "The command could not do its work")),
)
"""The first that an error is of names its kind."""
_BUG: Final = _Kind("internal", "Internal error of preshuffle", 500)
_EXCLUDE_JSON: Final = frozenset({"--text"})
"""Other formats: a command line that asks for both gets an error as text."""


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON."""
    return "--json" in arguments and not _EXCLUDE_JSON & set(arguments)


def problem_document(error: Exception, detail: str, exit_code: int) -> str:
    """Return the problem document of an error, one line of JSON.

    Args:
        error: what ended the command; a problem of the service (``problem``) is passed on.
        detail: the message that people read.
        exit_code: of the process.
    """
    kind = next((kind for of, kind in _KINDS if isinstance(error, of)), _BUG)
    document: dict[str, Any] = {"type": _URN + kind.name, "title": kind.title}
    if kind.status is not None:
        document["status"] = kind.status
    document |= {"detail": detail, **_members(error), **(getattr(error, "problem", None) or {}), "exit_code": exit_code}
    return json.dumps(document, ensure_ascii=False)


def _members(error: Exception) -> dict[str, Any]:
    """Return what the error says beyond its message, as the HTTP API names it."""
    match error:
        case NoRecipeError():
            nearest = [{"rule": one.rule, "recipe": one.recipe, "why_not": one.why_not} for one in error.nearest]
            return {"detail": error.message, "nearest": nearest, "missing": list(error.missing)}
        case QueryError():
            return {
                "problems": [{"field": one.field, "message": one.message, "valid": one.valid} for one in error.problems]
            }
        case BookError():
            return {
                "problems": [{"field": one.place, "message": one.message, "valid": one.valid} for one in error.problems]
            }
        case _:
            return {}
