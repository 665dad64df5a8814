"""Lint of a book across entries: references, gate_mode, ties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.base.limits import MAX_PROBLEMS
from preshuffle.registry.entries import Rule
from preshuffle.registry.lint.calls.engine_layers import engine_layer_problems
from preshuffle.registry.lint.calls.signatures import signature_problems
from preshuffle.registry.lint.conditions import condition_problems
from preshuffle.registry.lint.effort import MOST, Effort, TooCostlyError
from preshuffle.registry.lint.families import family_problems, packing_problems, same_names, unknown_families
from preshuffle.registry.lint.fusions import fusion_problems
from preshuffle.registry.lint.recipes import recipe_problems
from preshuffle.registry.lint.refusals import refusal_problems
from preshuffle.registry.lint.releases import release_problems
from preshuffle.registry.lint.row_orders import missing_orders
from preshuffle.registry.lint.ties import ties
from preshuffle.registry.lint.unmatchable import unmatchable
from preshuffle.registry.lint.unreachable import Contradictions, covered
from preshuffle.registry.loading import Book, NamedArch, key_of, names_of
from preshuffle.registry.text import is_recorded, record, signature

_RECORD = "lint"
"""Name under which it is recorded that the packaged book has no problems."""


def lint_packaged(book: Book) -> list[Problem]:
    """Return the problems of a book without overlays.

    That is ``lint``, once per text and code.

    Comparing rules takes as long as everything else in loading a book.
    """
    documents = {id(place.document): place.document for place in book.places.values()}
    digest = signature(documents.values())
    if is_recorded(_RECORD, digest):
        return []
    problems = lint(book)
    if not problems:
        record(_RECORD, digest)
    return problems


def lint(book: Book) -> list[Problem]:
    """Return cross-entry problems, the first ``MAX_PROBLEMS`` of them.

    The last one then says that there may be more. A book that takes too long to compare is a problem, too.
    """
    effort = Effort(MOST)
    problems: list[Problem] = []
    try:
        problems += islice(_references(book, effort), MAX_PROBLEMS + 1)
        if not problems:
            problems += islice(_comparisons(book, effort), MAX_PROBLEMS + 1)
    except TooCostlyError as error:
        problems.append(Problem(book.sources[-1], 1, 1, str(error)))
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [replace(problems[MAX_PROBLEMS], message="and more problems", valid=(), count=0)]
    return problems


def _references(book: Book, effort: Effort) -> Iterator[Problem]:
    """Yield what is wrong with single entries, and with what they refer to."""
    yield from _names(book, "layouts")
    yield from _names(book, "models")
    yield from _names(book, "model_types")
    yield from _names(book, "quantizations")
    yield from _arch_names(book)
    yield from _evidence(book)
    for recipe in book.recipes.values():
        yield from recipe_problems(book, recipe)
    for family in book.families:
        if not book.places["kernel_families", family.id].packaged:
            yield from family_problems(book, family)  # slow: those packaged are left to `registry check`
    yield from condition_problems(book)
    yield from packing_problems(book)
    yield from same_names(book)
    yield from unknown_families(book)
    for rule in book.rules.values():
        yield from _rule(book, rule, effort)
    yield from fusion_problems(book, effort)
    yield from refusal_problems(book)
    yield from signature_problems(book)
    yield from engine_layer_problems(book)


def _comparisons(book: Book, effort: Effort) -> Iterator[Problem]:
    """Yield what is wrong between rules, and between them and their recipes."""
    yield from missing_orders(book)
    yield from _ties(book, effort)
    yield from _unreachable(book, effort)


def _unreachable(book: Book, effort: Effort) -> Iterator[Problem]:
    """A rule that never wins is a mistake, and so is a packaged recipe that no packaged rule uses."""
    for rule, cover in covered(book, effort):
        place, other = book.places["rules", rule.id], book.places["rules", cover.id]
        if place.packaged and not other.packaged:
            continue  # an operator wants it so
        yield place.problem(
            f"rule {rule.id!r} never wins: {cover.id!r} ({other}) is more specific and matches wherever it does"
        )
    contradictions = Contradictions(book, effort)
    for rule in book.rules.values():
        if lacks := contradictions.of(rule):
            place = book.places["rules", rule.id]
            yield place.problem(f"rule {rule.id!r} never wins: recipe {rule.use} {lacks}", "use")
    if book.overlaid:
        return  # rules of an operator may take the place of all that used a recipe
    for id in book.recipes.keys() - {rule.use for rule in book.rules.values()}:
        yield book.places["recipes", id].problem(f"no rule uses recipe {id!r}")


def _evidence(book: Book) -> Iterator[Problem]:
    """Every packaged entry says where it is from; an operator's overlay may leave that out."""
    for (section, id), place in book.places.items():
        entry = book.entries[section].get(id)
        if place.packaged and getattr(entry, "evidence", True) == ():
            yield place.problem(f"{id} has no evidence; a URL is needed", valid=("evidence: [URL]",))


def _names(book: Book, section: str) -> Iterator[Problem]:
    """A name that means two entries would silently pick one of them."""
    owner = {id: id for id in book.entries[section]}
    for id, entry in book.entries[section].items():
        for index, alias in enumerate(entry.aliases):
            if owner.setdefault(alias, id) != id:
                place = book.places[section, id]
                yield place.problem(f"alias {alias!r} already means {owner[alias]!r}", "aliases", index)


def _arch_names(book: Book) -> Iterator[Problem]:
    """A name of two GPUs would silently mean one of them."""
    owner: dict[str, tuple[str, NamedArch]] = {}
    for id, entry in book.archs.items():
        for name, named in names_of(entry):
            first, meant = owner.setdefault(key_of(name), (name, named))
            if meant != named:
                place = book.places["archs", id]
                yield place.problem(f"{name!r} already means {meant.entry.id} (as {first!r})", "products")


def _rule(book: Book, rule: Rule, effort: Effort) -> Iterator[Problem]:
    place = book.places["rules", rule.id]
    if rule.use is not None and rule.use not in book.recipes:
        yield place.unknown("unknown recipe", rule.use, book.recipes, "use")
    for name in rule.when.get("env", {}):
        if name not in book.flags:
            yield place.unknown("unknown switch", name, book.flags, "when", "env", name)
    yield from unmatchable(book, rule, effort)
    yield from _engine(book, rule)
    yield from release_problems(book, rule)


def _engine(book: Book, rule: Rule) -> Iterator[Problem]:
    """A packaged rule's engines have entries; an overlay may name others."""
    place = book.places["rules", rule.id]
    condition = rule.conditions().get("engine")
    for name in condition.values if condition and place.packaged else ():
        if name is not None and name not in book.engines:
            yield place.unknown("unknown engine", str(name), book.engines, "when", "engine")


def _ties(book: Book, effort: Effort) -> Iterator[Problem]:
    """Two rules that are equally specific and can match one query: the last one, or the overlay's, has to change."""
    for pair in ties(book.rules.values(), effort):
        first, second = book.packaged_first("rules", pair)
        yield book.places["rules", second.id].problem(
            f"rules {first.id!r} ({book.places['rules', first.id]}) and {second.id!r} are "
            f"equally specific and can match the same query; give {second.id!r} one more field in `when`, or "
            f"`priority: 1` to win, or the id {first.id!r} to replace the other",
        )
