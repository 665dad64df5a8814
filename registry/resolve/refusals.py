"""Errors for queries that no recipe answers, with nearest matches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter

from preshuffle.registry.base.errors import NearMatch, NoRecipeError
from preshuffle.registry.base.suggestions import close_to
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.entries import Rule, Scalar
from preshuffle.registry.layer import NEEDED, MoELayer, engine_notes, unknown_engine, why_lacking
from preshuffle.registry.loading import Book, Prepared
from preshuffle.registry.resolve.match import RuleTrial, try_rule
from preshuffle.registry.resolve.requirements import refusal

_Distance = tuple[bool, int, bool, str]
_FIELD_WEIGHTS = {"weight_dtype": 3, "quant_type": 3}


def nothing_works(layer: MoELayer, rule: Rule, *, nearest: bool = True) -> NoRecipeError:
    """Return the error of a rule that rules every recipe out.

    Without the nearest rules it is found several times faster.
    """
    message = f"nothing is known to work for {_described(layer)}: {rule.because} (rule {rule.id})"
    message = "; ".join([message, *engine_notes(layer.book, layer.requested.engine, rule.engine_since)])
    matches = _matches(nearest_trials(layer)) if nearest else ()
    return NoRecipeError(message, matches, rule=rule.id, evidence=rule.evidence, why=rule.because)


def _matches(trials: Iterable[RuleTrial]) -> list[NearMatch]:
    return [NearMatch(item.rule.id, item.recipe.id, item.why_not) for item in trials if item.recipe is not None]


def nearest_trials(layer: MoELayer, count: int = 3) -> list[RuleTrial]:
    """Return the unusable rules that fail by the least, nearest first.

    Requirements of recipes only add to a rule's distance, so those of far rules need not be tried.
    """
    book, facts = layer.book, layer.rule_facts
    found: list[tuple[_Distance, RuleTrial]] = []
    for least, prepared in sorted(_bounds(book, facts), key=itemgetter(0)):
        if len(found) == count and least[:2] > found[-1][0][:2]:
            break
        trial = try_rule(book, prepared.rule, facts)
        if not trial.usable:
            found.append((_distance(trial), trial))
            found = sorted(found, key=itemgetter(0))[:count]
    return [trial for _, trial in found]


def _bounds(book: Book, facts: Mapping[str, Scalar]) -> Iterator[tuple[_Distance, Prepared]]:
    """Yield each rule with a recipe, and its distance by conditions alone."""
    for prepared in book.rule_index.prepared:
        if prepared.recipe is not None:
            tests = chain(prepared.subject, prepared.circumstances)
            yield (
                _distance_of([name for name, holds in tests if not holds(facts.get(name))], 0, prepared.rule),
                prepared,
            )


def _distance(item: RuleTrial) -> _Distance:
    return _distance_of([miss.field for miss in item.misses], len(item.lacking), item.rule)


def _distance_of(missed: Sequence[str], lacking: int, rule: Rule) -> _Distance:
    """Return a sort key: the rules that fail by the least first.

    A rule that matches is nearest; other weights are farther than other switches.
    """
    weights = sum(_FIELD_WEIGHTS.get(field, 1) for field in missed)
    return bool(missed), weights + lacking, "engine" in missed, rule.id


def _described(layer: MoELayer) -> str:
    details = [f"activation_dtype {layer.query.activation_dtype or 'unknown'}", layer.requested.arch]
    if layer.requested.engine:
        details.append(f"engine {layer.requested.engine}")
    return f"{layer.requested.model} with {', '.join(details)}"


def _newer_aiter(layer: MoELayer, rule: Rule) -> str | None:
    """Return the first AITER with all that a rule's recipe requires; None where no newer one helps."""
    query, recipe = layer.requested, layer.book.recipes.get(rule.use or "")
    entries = [layer.book.features[name] for name in recipe.requires.aiter] if recipe else []
    lacking = [entry for entry in entries if why_lacking(entry, query.aiter, query.aiter_features)]
    if not lacking or any(entry.until for entry in lacking):
        return None
    return max((entry.since for entry in lacking), key=version_key)


def no_recipe(layer: MoELayer) -> NoRecipeError:
    """Return the error where no rule answers."""
    book = layer.book
    if layer.known_arch.no_fused_moe:
        message = f"no recipe for {_described(layer)}: {layer.known_arch.no_fused_moe}"
        return NoRecipeError(message, evidence=layer.known_arch.evidence, why=layer.known_arch.no_fused_moe)
    contract = refusal(book, layer.rule_facts)
    if contract is not None:
        divided = contract.divided(layer.rule_facts)
        refused = f"{contract.says}{f' (found {divided})' if divided else ''}; {contract.fix}"
        notes = engine_notes(book, layer.requested.engine, contract.engine_since)
        message = "; ".join([f"no recipe for {_described(layer)}: {refused}", *notes])
        return NoRecipeError(message, evidence=contract.evidence, why=refused)
    trials = nearest_trials(layer)
    nearest = _matches(trials)
    query = layer.requested
    unknown = [name for name in NEEDED if getattr(layer.query, name) is None]
    matches = bool(trials) and trials[0].matches
    stranger = unknown_engine(book, query.engine)  # then no rule matches, whatever the model is
    if layer.model is None and (unknown or not (matches or stranger)):
        ids = close_to(query.model, book.models)
        nearby = f" (nearest: {', '.join(ids)})" if ids else ""
        why = None
        message = f"no rule for model {query.model!r} on {query.arch}: no entry knows it{nearby}"
        more = [stranger]
    else:
        lacks = f"what matches lacks what its recipe requires: {nearest[0].why_not}" if matches and nearest else None
        newer = _newer_aiter(layer, trials[0].rule) if lacks else None
        lacks = f"take AITER {newer} or newer for this; {lacks}" if newer else lacks
        why = lacks or stranger
        message = f"no rule for {_described(layer)}{f': {why}' if why else ''}"
        more = []
    if stranger:  # what rules need of an engine says nothing of this one
        nearest = [near for near in nearest if "engine=" not in near.why_not]
    more.append(f"a query for it must say: {', '.join(unknown)}" if unknown else None)
    more += engine_notes(book, query.engine)
    if unknown:
        why = f"the query must say {', '.join(unknown)}"
    return NoRecipeError("; ".join([message, *filter(None, more)]), nearest, unknown, why=why)
