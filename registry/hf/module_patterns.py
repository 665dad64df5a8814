"""Module patterns of quantization sections, matched against module names."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.linear_pattern import MAX_PATTERN, PatternSyntaxError, linear_pattern

_REGEX = "re:"


def matches_module(pattern: str, module: str) -> bool:
    """Return whether a pattern matches a module or one that contains it.

    A pattern is a regular expression behind ``re:`` (compressed-tensors), a glob with ``*`` (Quark), or a name: the
    module's own, that of a module above it, or some parts of its path (``mlp.experts``).
    An invalid expression matches nothing.

    Raises:
        QueryError: the pattern is too long, or cannot be matched in linear time.

    Example:
        >>> matches_module("re:.*mlp.experts.*", "model.layers.3.mlp.experts.0.up_proj")
        True
        >>> matches_module("model.layers.3", "model.layers.30.mlp.experts.0.up_proj")
        False
        >>> matches_module("model.layers.*.self_attn", "model.layers.3.mlp.experts.0.up_proj")
        False
    """
    if pattern.startswith(_REGEX):
        try:
            return linear_pattern(pattern.removeprefix(_REGEX)).starts(module)
        except PatternSyntaxError:
            return False
        except ValueError as error:
            raise QueryError([FieldProblem("quantization_config", f"a pattern of modules: {error}")]) from None
    if "*" in pattern or "?" in pattern:
        if len(pattern) > MAX_PATTERN:
            text = f"a pattern of modules has at most {MAX_PATTERN} characters, found {len(pattern)}"
            raise QueryError([FieldProblem("quantization_config", f"{text}: {pattern[:60]!r}…")])
        return fnmatchcase(module, pattern) or fnmatchcase(module, f"{pattern}.*")
    return f".{pattern}." in f".{module}."


def any_matches_module(patterns: Iterable[str], module: str) -> bool:
    """Return whether any of the patterns matches a module."""
    return any(matches_module(pattern, module) for pattern in patterns)
