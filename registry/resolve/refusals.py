"""Errors for queries that no recipe answers, with nearest matches."""

from __future__ import annotations

from preshuffle.registry.base.errors import NearMatch, NoRecipeError
from preshuffle.registry.base.suggestions import close_to
from preshuffle.registry.entries import Rule
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve.case import _NEEDED, Case
from preshuffle.registry.resolve.match import Tried

_FAR = {"weight_dtype": 3, "quant_type": 3}


def nothing_works(case: Case, rule: Rule, tried: tuple[Tried, ...]) -> NoRecipeError:
    """Return the error where the most specific rule says that no recipe is right."""
    message = f"nothing is known to work for {_asked(case)}: {rule.because} (rule {rule.id})"
    return NoRecipeError(message, _nearest(tried), rule=rule.id, evidence=rule.evidence)


def _nearest(tried: tuple[Tried, ...]) -> list[NearMatch]:
    """The three rules that fail by the least."""
    near = [(item, item.recipe) for item in sorted(tried, key=_distance) if not item.usable]
    return [NearMatch(item.rule.id, recipe.id, item.why_not) for item, recipe in near if recipe is not None][:3]


def _distance(item: Tried) -> tuple[bool, int, bool, str]:
    """How far a rule is from the query: one that matches is nearest; other weights are farther than other switches."""
    missed = [miss.field for miss in item.misses]
    far = sum(_FAR.get(field, 1) for field in missed) + len(item.lacking)
    return not item.matches, far, "engine" in missed, item.rule.id


def _asked(case: Case) -> str:
    asked = [f"activation_dtype {case.full.activation_dtype or 'unknown'}", case.query.arch]
    if case.query.engine:
        asked.append(f"engine {case.query.engine}")
    return f"{case.query.model} with {', '.join(asked)}"


def no_recipe(case: Case, tried: tuple[Tried, ...], book: Book) -> NoRecipeError:
    """Return the error where no rule answers."""
    nearest = _nearest(tried)
    query = case.query
    unknown = [name for name in _NEEDED if getattr(case.full, name) is None]
    if case.model is None:
        ids = close_to(query.model, book.models)
        nearby = f" (nearest: {', '.join(ids)})" if ids else ""
        message = f"no rule for model {query.model!r} on {query.arch}: no entry knows it{nearby}"
        if unknown:
            message += f"; a query for it must say: {', '.join(unknown)}"
        return NoRecipeError(message, nearest, unknown)
    message = f"no rule for {_asked(case)}"
    if any(item.matches for item in tried):
        message += ": what matches lacks what its recipe requires"
    if unknown:
        message += f"; a query for it must say: {', '.join(unknown)}"
    return NoRecipeError(message, nearest, unknown)
