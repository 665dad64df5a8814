"""Errors for queries that no recipe answers, with nearest matches."""

from __future__ import annotations

from preshuffle.registry.base.errors import NearMatch, NoRecipeError
from preshuffle.registry.base.suggestions import close_to
from preshuffle.registry.entries import Rule
from preshuffle.registry.layer import NEEDED, MoELayer, engine_notes, unknown_engine
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve.match import RuleTrial
from preshuffle.registry.resolve.requirements import refusal

_FIELD_WEIGHTS = {"weight_dtype": 3, "quant_type": 3}


def nothing_works(layer: MoELayer, rule: Rule, trials: tuple[RuleTrial, ...], book: Book) -> NoRecipeError:
    """Return the error of a rule that rules every recipe out."""
    message = f"nothing is known to work for {_described(layer)}: {rule.because} (rule {rule.id})"
    message = "; ".join([message, *engine_notes(book, layer.requested.engine, rule.since)])
    return NoRecipeError(message, _nearest(trials), rule=rule.id, evidence=rule.evidence)


def _nearest(trials: tuple[RuleTrial, ...]) -> list[NearMatch]:
    """Return the three rules that fail by the least."""
    nearest = [(item, item.recipe) for item in sorted(trials, key=_distance) if not item.usable]
    return [NearMatch(item.rule.id, recipe.id, item.why_not) for item, recipe in nearest if recipe is not None][:3]


def _distance(item: RuleTrial) -> tuple[bool, int, bool, str]:
    """Return a sort key: the rules that fail by the least first.

    A rule that matches is nearest; other weights are farther than other switches.
    """
    missed = [miss.field for miss in item.misses]
    distance = sum(_FIELD_WEIGHTS.get(field, 1) for field in missed) + len(item.lacking)
    return not item.matches, distance, "engine" in missed, item.rule.id


def _described(layer: MoELayer) -> str:
    details = [f"activation_dtype {layer.query.activation_dtype or 'unknown'}", layer.requested.arch]
    if layer.requested.engine:
        details.append(f"engine {layer.requested.engine}")
    return f"{layer.requested.model} with {', '.join(details)}"


def no_recipe(layer: MoELayer, trials: tuple[RuleTrial, ...], book: Book) -> NoRecipeError:
    """Return the error where no rule answers."""
    if layer.known_arch.no_fused_moe:
        message = f"no recipe for {_described(layer)}: {layer.known_arch.no_fused_moe}"
        return NoRecipeError(message, evidence=layer.known_arch.evidence)
    contract = refusal(book, layer.rule_facts)
    if contract is not None:
        message = f"no recipe for {_described(layer)}: {contract.says}; {contract.fix}"
        return NoRecipeError(message, evidence=contract.evidence)
    nearest = _nearest(trials)
    query = layer.requested
    unknown = [name for name in NEEDED if getattr(layer.query, name) is None]
    matches = any(item.matches for item in trials)
    if layer.model is None and (unknown or not matches):
        ids = close_to(query.model, book.models)
        nearby = f" (nearest: {', '.join(ids)})" if ids else ""
        message = f"no rule for model {query.model!r} on {query.arch}: no entry knows it{nearby}"
        more = [unknown_engine(book, query.engine)]
    else:
        lacks = f"what matches lacks what its recipe requires: {nearest[0].why_not}" if matches and nearest else None
        why = lacks or unknown_engine(book, query.engine)
        message = f"no rule for {_described(layer)}{f': {why}' if why else ''}"
        more = []
    more.append(f"a query for it must say: {', '.join(unknown)}" if unknown else None)
    more += engine_notes(book, query.engine)
    return NoRecipeError("; ".join([message, *filter(None, more)]), nearest, unknown)
