"""Module patterns of quantization sections, matched against module names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

_REGEX = "re:"


def matches_module(pattern: str, module: str) -> bool:
    """Return whether a pattern matches a module or one that contains it.

    A pattern is a regular expression behind ``re:`` (compressed-tensors), a glob with ``*`` (Quark), or a name: the
    module's own, that of a module above it, or some parts of its path (``mlp.experts``).

    Example:
        >>> matches_module("re:.*mlp.experts.*", "model.layers.3.mlp.experts.0.up_proj")
        True
        >>> matches_module("model.layers.3", "model.layers.30.mlp.experts.0.up_proj")
        False
        >>> matches_module("model.layers.*.self_attn", "model.layers.3.mlp.experts.0.up_proj")
        False
    """
    if pattern.startswith(_REGEX):
        expression = _compiled(pattern.removeprefix(_REGEX))
        return expression is not None and expression.match(module) is not None
    if "*" in pattern or "?" in pattern:
        return fnmatchcase(module, pattern) or fnmatchcase(module, f"{pattern}.*")
    return f".{pattern}." in f".{module}."


def any_matches_module(patterns: Iterable[str], module: str) -> bool:
    """Return whether any of the patterns matches a module."""
    return any(matches_module(pattern, module) for pattern in patterns)


@lru_cache(maxsize=256)
def _compiled(expression: str) -> re.Pattern[str] | None:
    """Compile an expression; None where it is invalid, so that it matches nothing."""
    try:
        return re.compile(expression)
    except (re.error, RecursionError):
        return None
