"""Values of options and arguments, for completion.

They are words of queries, and names of the book.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from preshuffle.api.commands.options.books import BOOK, from_environment
from preshuffle.api.commands.options.query_options import INSTALLED, kinds_of
from preshuffle.registry.base.words import ROLES, RowOrder
from preshuffle.registry.values.finding import FindingCode
from preshuffle.registry.values.query import Query

Given = Mapping[str, list[str]]


class Completion(NamedTuple):
    """What a word can be, and what that means."""

    value: str
    help: str = ""


def values_of(action: argparse.Action, given: Given) -> Iterator[Completion]:
    """Yield the known values of an option or argument.

    Args:
        action: of the parser.
        given: what stands on the line already, by destination.
    """
    if action.choices is not None:
        yield from (Completion(str(choice)) for choice in action.choices)
        return
    field = action.dest.removeprefix("query_")
    if action.dest != field and field in Query.model_fields:
        yield from (Completion(word) for word in _words(Query.model_fields[field].annotation))
    if (values := _VALUES.get(field)) is not None:
        yield from values(given)


def _words(annotation: Any) -> Iterator[str]:
    for kind in kinds_of(annotation):
        if get_origin(kind) is Literal:
            yield from map(str, get_args(kind))


def _book(given: Given) -> Any:
    """Return the book that the line names; the packaged one where that does not load."""
    from preshuffle.registry import Registry
    from preshuffle.registry.base.errors import PreshuffleError

    try:
        return Registry.load(given.get("book") or from_environment(BOOK, os.environ)).book
    except PreshuffleError:
        return Registry.default().book


def _fixed(words: Iterable[str], _given: Given) -> Iterator[Completion]:
    yield from map(Completion, words)


def _entries(section: str, given: Given) -> Iterator[Completion]:
    for id, entry in _book(given).entries[section].items():
        yield Completion(id, str(getattr(entry, "title", "") or ""))


def _models(given: Given) -> Iterator[Completion]:
    for id, entry in _book(given).models.items():
        yield Completion(id)
        yield from (Completion(alias, id) for alias in entry.aliases if not set(alias) & set("*?["))


def _archs(given: Given) -> Iterator[Completion]:
    for id, entry in _book(given).archs.items():
        yield Completion(id, ", ".join(entry.products))
        yield from (Completion(product, id) for product in entry.products)


def _engines(given: Given) -> Iterator[Completion]:
    for id, entry in _book(given).entries["engines"].items():
        yield Completion(id)
        versions = dict.fromkeys((entry.newest, entry.first))
        yield from (Completion(f"{id}@{version}") for version in versions if version)


def _switches(given: Given) -> Iterator[Completion]:
    for id, entry in _book(given).flags.items():
        yield Completion(f"{id}=", entry.meaning)


def _features(given: Given) -> Iterator[Completion]:
    for id in _book(given).features:
        yield from (Completion(id), Completion(f"!{id}"))


def _producers(given: Given) -> Iterator[Completion]:
    yield from map(Completion, sorted({entry.producer for entry in _book(given).models.values() if entry.producer}))


def _sections(given: Given) -> Iterator[Completion]:
    yield from map(Completion, _book(given).entries)


def _ids(given: Given) -> Iterator[Completion]:
    section = (given.get("section") or [""])[-1]
    if section in _book(given).entries:
        yield from _entries(section, given)


def _codes(_given: Given) -> Iterator[Completion]:
    from preshuffle.registry.check import describe_code

    yield from (Completion(code, describe_code(code).says) for code in get_args(FindingCode))


def _recipes(given: Given) -> Iterator[Completion]:
    yield from (Completion("legacy"), Completion("generic"))
    yield from _entries("recipes", given)


def _states(_given: Given) -> Iterator[Completion]:
    from preshuffle.api.fleet import STATES

    yield from (Completion(state, meaning) for state, meaning in STATES.items())


_VALUES: Final[Mapping[str, Callable[[Given], Iterator[Completion]]]] = {
    "model": _models,
    "arch": _archs,
    "engine": _engines,
    "producer": _producers,
    "env": _switches,
    "aiter": partial(_fixed, (INSTALLED,)),
    "aiter_features": _features,
    "layout": partial(_entries, "layouts"),
    "explain": _codes,
    "code": _codes,
    "sort": partial(_fixed, ("state", "name", "since", "seen", "node", "model", "arch", "engine", "code", "owner")),
    "group_by": partial(_fixed, ("state", "node", "model", "arch", "engine", "code", "owner")),
    "recipes": _recipes,
    "role": partial(_fixed, ROLES),
    "gate_up_order": partial(_fixed, get_args(RowOrder)),
    "section": _sections,
    "id": _ids,
    "state": _states,
    "tables": partial(_fixed, ("auto",)),
}
"""By the destination of an option or argument, without the prefix of query fields."""
