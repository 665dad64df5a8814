"""Effects of overlays on packaged entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from preshuffle.registry import Registry
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.entries import Rule
from preshuffle.registry.layer import layer_of
from preshuffle.registry.lint import can_both_match
from preshuffle.registry.loading import Book
from preshuffle.registry.reach import Reach
from preshuffle.registry.resolve import choose

_PAIR_TRIES = 32
"""Queries that are tried for two rules."""

Effect = Literal["replaced", "unreachable", "outranked", "unused"]


class Overlaid(Frozen):
    """A packaged entry that an overlay changes, or takes queries from.

    Attributes:
        place: ``file:line`` of the packaged entry.
        effect: ``replaced`` by the entry of its id; ``unreachable``, a rule for which no query was found that it still
            answers; ``outranked``, a rule of which an overlay's rule takes a query; ``unused``, a
            recipe that no rule uses any more.
        by: entries of the overlay that do it, ``file:line`` by id; empty where it is not found which.
    """

    section: str
    id: str
    place: str
    effect: Effect
    by: dict[str, str]


def overlaid_entries(book: Book) -> Iterator[Overlaid]:
    """Yield what the overlays of a book do to packaged entries."""
    packaged = Registry.default().book
    for (section, id), place in book.places.items():
        if not place.packaged and id in packaged.entries[section]:
            yield _overlaid(packaged, section, id, "replaced", {id: str(place)})
    yield from _rules(book, packaged)
    used = {rule.use for rule in book.rules.values()}
    for id in packaged.recipes.keys() - used:
        if book.places["recipes", id].packaged:
            by = [rule.id for rule in packaged.rules.values() if rule.use == id]
            yield _overlaid(packaged, "recipes", id, "unused", _places(book, by))


def _rules(book: Book, packaged: Book) -> Iterator[Overlaid]:
    """Yield the packaged rules that overlays' rules take queries from."""
    own = {id: rule for id, rule in book.rules.items() if not book.places["rules", id].packaged}
    now, before, memo = Reach(book), Reach(packaged, own.values()), Memo()

    def takes(rule: Rule, of: Rule) -> bool:
        """Whether a query is found that a packaged rule answered, and an overlay's rule answers now."""
        query = before.witness(of, rule, _PAIR_TRIES) if can_both_match(rule, of) else None
        choice = choose(book, layer_of(query, book, memo).rule_facts) if query else None
        return choice is not None and choice.winner.rule.id == rule.id

    for id, rule in book.rules.items():
        if id in own:
            continue
        if now.witness(rule) is None:
            yield _overlaid(packaged, "rules", id, "unreachable", _places(book, now.winners & own.keys()))
        elif by := [other.id for other in own.values() if takes(other, rule)]:
            yield _overlaid(packaged, "rules", id, "outranked", _places(book, by))


def _places(book: Book, rules: Iterable[str]) -> dict[str, str]:
    return {id: str(book.places["rules", id]) for id in sorted(rules)}


def _overlaid(packaged: Book, section: str, id: str, effect: Effect, by: dict[str, str]) -> Overlaid:
    return Overlaid(section=section, id=id, place=str(packaged.place_of(section, id)), effect=effect, by=by)
