"""Module patterns of quantization sections, matched against module names in bounded time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.globs import glob_test, pattern_of_glob
from preshuffle.registry.base.linear_pattern import MAX_PATTERN, LinearPattern, PatternSyntaxError

_REGEX: Final = "re:"
_MOST_STEPS: Final = 140_000_000
"""Steps of 1 to 3 ns that matching one configuration's patterns may take."""
_COMPILE: Final = (25_000, 200)
"""Steps of compiling an expression, and more for each of its characters and instructions."""
_REFUSE: Final = (75_000, 2_500)
"""Steps more where it is none, and for each of its characters."""
_MATCH: Final = 1_500
"""Steps of one match, besides one for each instruction of the expression and character of the name."""
_GLOB: Final = 1_200
"""Steps of one comparison with a glob that has stars alone."""

Test = tuple[Callable[[str], bool], int, int]
"""Whether a name matches; steps of a match, and more for each character of the name."""


class MatchSteps:
    """Steps that may still be taken: the same on every machine."""

    def __init__(self, steps: int = _MOST_STEPS) -> None:
        """Start with all of them."""
        self._left = steps

    def spend(self, steps: int) -> None:
        """Take steps.

        Raises:
            QueryError: there are not so many left.
        """
        self._left -= steps
        if self._left < 0:
            raise _problem("its patterns of modules take too long to match: too many, or too large repetitions")


class ModulePatterns:
    """Patterns of one list, each compiled once, matched against many modules.

    A pattern is a regular expression behind ``re:`` (compressed-tensors), a glob with ``*`` (Quark), or a name: the
    module's own, that of a module above it, or some parts of its path (``mlp.experts``). Names take no time, however
    many there are. An invalid expression matches nothing.

    Example:
        >>> patterns = ModulePatterns(["lm_head", "re:.*mlp.experts.*", "model.layers.3"], MatchSteps())
        >>> patterns.first("model.layers.3.mlp.experts.0.up_proj"), patterns.first("model.layers.30.self_attn")
        (1, None)
    """

    def __init__(self, patterns: Iterable[str], effort: MatchSteps) -> None:
        """Sort names from patterns."""
        self._effort = effort
        self._names: dict[str, int] = {}
        self._patterns: dict[str, int] = {}
        self._tests: dict[str, Test] = {}
        self._found: dict[str, int | None] = {}
        for place, pattern in enumerate(patterns):
            several = pattern.startswith(_REGEX) or "*" in pattern or "?" in pattern
            (self._patterns if several else self._names).setdefault(pattern, place)

    def first(self, module: str) -> int | None:
        """Return the place of the first pattern that matches a module.

        It may match one that contains it, too.

        Raises:
            QueryError: a pattern is too long, cannot be matched in linear time, or all of them take too long.
        """
        if module not in self._found:
            self._found[module] = self._first(module)
        return self._found[module]

    def _first(self, module: str) -> int | None:
        named = [place for part in _parts(module) if (place := self._names.get(part)) is not None]
        best = min(named, default=None)
        for pattern, place in self._patterns.items():
            if best is not None and place > best:
                break
            matches, steps, per_character = self._tests.get(pattern) or self._compiled(pattern)
            self._effort.spend(steps + per_character * len(module))
            if matches(module):
                return place
        return best

    def _compiled(self, pattern: str) -> Test:
        test = self._tests[pattern] = _test(pattern, self._effort)
        return test


def matches_module(pattern: str, module: str) -> bool:
    """Return whether a pattern matches a module or one that contains it.

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
    return ModulePatterns([pattern], MatchSteps()).first(module) is not None


def _parts(module: str) -> Iterable[str]:
    """Yield every run of a dotted name's parts."""
    parts = module.split(".")
    for start in range(len(parts)):
        for end in range(start + 1, len(parts) + 1):
            yield ".".join(parts[start:end])


def _test(pattern: str, effort: MatchSteps) -> Test:
    if not pattern.startswith(_REGEX):
        if len(pattern) > MAX_PATTERN:
            found = f"found {len(pattern)}: {pattern[:60]!r}…"
            raise _problem(f"a pattern of modules has at most {MAX_PATTERN} characters, {found}")
        if "?" not in pattern and "[" not in pattern:
            itself, inside = glob_test(pattern), glob_test(f"{pattern}.*")
            return lambda module: itself(module) or inside(module), _GLOB + len(pattern), 0
        compiled = _expression(f"(?s){pattern_of_glob(pattern)}(?:\\..*)?", effort)
        return (compiled.matches, _MATCH, compiled.size) if compiled else (_never, _GLOB, 0)
    compiled = _expression(pattern.removeprefix(_REGEX), effort)
    return (compiled.starts, _MATCH, compiled.size) if compiled else (_never, _GLOB, 0)


def _expression(text: str, effort: MatchSteps) -> LinearPattern | None:
    """Compile an expression; None where it is none."""
    effort.spend(_COMPILE[0] + _COMPILE[1] * len(text))
    try:
        compiled = LinearPattern(text)
        effort.spend(_COMPILE[1] * compiled.size)
        return compiled
    except PatternSyntaxError:
        effort.spend(_REFUSE[0] + _REFUSE[1] * len(text))
        return None
    except QueryError:
        raise
    except ValueError as error:
        raise _problem(f"a pattern of modules: {error}") from None


def _never(_: str) -> bool:
    return False


def _problem(message: str) -> QueryError:
    return QueryError([FieldProblem("quantization_config", message)])
