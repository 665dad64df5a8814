"""Pydantic's validation errors as one plain sentence per field."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.base.suggestions import close_to

Path = tuple[str | int, ...]


def field_problems(error: ValidationError) -> list[tuple[Path, FieldProblem]]:
    """Return one plain sentence per wrong field, with the valid values."""
    found: list[tuple[Path, FieldProblem]] = []
    for item in error.errors(include_url=False):
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
        elif kind == "value_error":
            message = str(context.get("error", item["msg"]))
        else:
            text = item["msg"]
            message = f"{text[:1].lower()}{text[1:]}, found {short(item['input'])}"
        found.append((path, FieldProblem(".".join(str(part) for part in path) or "(whole)", message, valid)))
    return found


def _meant(value: Any, valid: tuple[str, ...]) -> str:
    """Return a suggestion for a word that is close to a valid one, in any case."""
    words = {word.casefold(): word for word in valid}
    nearest = close_to(value.casefold(), words) if isinstance(value, str) else ()
    return f" (did you mean {words[nearest[0]]}?)" if nearest else ""


def short(value: Any) -> str:
    """Return a value's ``repr``, shortened for error messages."""
    try:
        shown = repr(value)
    except ValueError:  # Python does not write out integers of thousands of digits
        shown = "a number of thousands of digits"
    return shown if len(shown) < 80 else shown[:77] + "..."
