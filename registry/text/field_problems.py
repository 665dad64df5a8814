"""Pydantic's validation errors as one plain sentence per field."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.base.limits import MAX_PROBLEMS, more
from preshuffle.registry.base.suggestions import close_to

_LONGEST_PATH = 512
_LONGEST_SHOWN = 1024
Path = tuple[str | int, ...]


def field_problems(error: ValidationError) -> list[tuple[Path, FieldProblem]]:
    """Return one plain sentence per wrong field, with the valid values.

    Of more than ``MAX_PROBLEMS`` the first, and how many more there are.
    """
    found: list[tuple[Path, FieldProblem]] = []
    items = error.errors(include_url=False)
    for item in items[:MAX_PROBLEMS]:
        context = item.get("ctx", {})
        path: Path = (*item["loc"], *getattr(context.get("error"), "path", ()))
        if item["type"] == "too_short" and any(other[: len(path)] == path for other, _ in found):
            continue  # pydantic counts only items that it could read; the others have problems of their own already
        valid: tuple[str, ...] = ()
        kind = item["type"]
        if kind == "extra_forbidden":
            message = "unknown field"
        elif kind == "missing":
            message = "missing"
        elif kind == "literal_error":
            valid = tuple(part.strip(" '") for part in str(context["expected"]).replace(" or ", ", ").split(","))
            message = f"{short(item['input'])} is not one of the valid values{_meant(item['input'], valid)}"
        elif kind == "model_type":
            message = f"input should be a valid dictionary, found {short(item['input'])}"
        elif kind == "value_error":
            message = str(context.get("error", item["msg"]))
        else:
            text = item["msg"]
            message = f"{text[:1].lower()}{text[1:]}, found {short(item['input'])}"
        found.append((path, FieldProblem(_dotted(path), message, valid)))
    if len(items) > MAX_PROBLEMS:
        found.append(((), FieldProblem("(whole)", more(len(items) - MAX_PROBLEMS, "problems"))))
    return found


def _dotted(path: Path) -> str:
    text = ".".join(str(part) for part in path) or "(whole)"
    return text if len(text) <= _LONGEST_PATH else f"{text[:_LONGEST_PATH]}…"


def _meant(value: Any, valid: tuple[str, ...]) -> str:
    """Return a suggestion for a word that is close to a valid one, in any case."""
    words = {word.casefold(): word for word in valid}
    nearest = close_to(value.casefold(), words) if isinstance(value, str) else ()
    return f" (did you mean {words[nearest[0]]}?)" if nearest else ""


def short(value: Any) -> str:
    """Return a value's ``repr``, shortened for error messages."""
    try:
        shown = repr(value[:_LONGEST_SHOWN] if isinstance(value, str) else value)
    except ValueError:  # Python does not write out integers of thousands of digits
        shown = "a number of thousands of digits"
    return shown if len(shown) < 80 else shown[:77] + "..."
