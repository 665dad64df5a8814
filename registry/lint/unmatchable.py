"""Conditions of a rule that no query can satisfy.

Values that no field can have are refused where an entry is read; these need the book, or several conditions at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from preshuffle.registry.base.errors import Problem
from preshuffle.registry.entries import Condition, FlagEntry, Rule, Scalar
from preshuffle.registry.layer import AITER, value_of
from preshuffle.registry.lint.effort import Effort
from preshuffle.registry.loading import Book, Place

_MOST: Final[Mapping[str, int]] = {
    **dict.fromkeys(("cu_num", "tp", "ep", "dp"), 4096),
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_experts", "top_k"), 2**20),
}
"""Greatest values that a query may state; the smallest is 1."""


def unmatchable(book: Book, rule: Rule, effort: Effort | None = None) -> Iterator[Problem]:
    """Yield each condition of a rule that never holds.

    Raises:
        TooCostlyError: it takes more effort than is allowed.
    """
    effort = effort or Effort()
    place = book.places["rules", rule.id]
    conditions = rule.conditions()
    yield from _arch(book, place, conditions)
    yield from _model(book, place, conditions, effort)
    yield from _numbers(place, conditions)
    engine, version = conditions.get("engine"), conditions.get("engine_version")
    if engine is not None and engine.values == (None,) and version is not None and not version.matches(None):
        yield place.problem("no version without an engine: `engine` is null", "when", "engine_version")
    for name, condition in conditions.items():
        if name.startswith("env."):
            effort.spend(1 + (len(engine.values) if engine else 0))
            yield from _switch(book, place, name.removeprefix("env."), condition, engine)


def _arch(book: Book, place: Place, conditions: Mapping[str, Condition]) -> Iterator[Problem]:
    condition = conditions.get("arch")
    for name in condition.values if condition else ():
        if isinstance(name, str) and name not in book.archs:
            yield unknown_arch(book, place, name, "when", "arch")


def unknown_arch(book: Book, place: Place, name: str, *at: str) -> Problem:
    """Return the problem of a GPU's name that no entry knows."""
    if says := book.arch_names.other(name):
        return place.problem(f"arch {name!r} is {says}", *at)
    return place.problem(f"unknown arch {name!r}", *at, valid=_archs_near(book, name))


def _archs_near(book: Book, name: str) -> tuple[str, ...]:
    """Return the names that may have been meant: gfx names, or the nearest products."""
    products = () if name.casefold().startswith("gfx") else book.arch_names.near(name)
    return products or tuple(book.archs)


def _model(book: Book, place: Place, conditions: Mapping[str, Condition], effort: Effort) -> Iterator[Problem]:
    """A name that a glob among the aliases of an entry reads as that entry.

    Plain aliases have become ids by now. A name that no entry knows is one of the user's own, which a query may have.
    """
    condition = conditions.get("model")
    for name in condition.values if condition else ():
        effort.spend(book.model_names.effort)
        entry = book.model_names.find(str(name))
        if entry is not None and entry.id != name:
            yield place.problem(
                f"a query for {name!r} is answered as one for {entry.id!r}, whose aliases match it; name {entry.id!r}, "
                f"or give {name!r} an entry of its own in `models`",
                "when",
                "model",
                valid=(entry.id,),
            )


def _numbers(place: Place, conditions: Mapping[str, Condition]) -> Iterator[Problem]:
    bounds = {name: _bounds(conditions[name], most) for name, most in _MOST.items() if name in conditions}
    for name, bound in bounds.items():
        if bound is None:
            text = f"no {name} satisfies {conditions[name].text!r}; it is a whole number from 1 to {_MOST[name]}"
            yield place.problem(text, "when", name)
    top_k, experts = bounds.get("top_k"), bounds.get("num_experts")
    if top_k and experts and top_k[0] > experts[1]:
        text = f"{top_k[0]} experts for each token, of at most {experts[1]} in all"
        yield place.problem(text, "when", "top_k")


def _bounds(condition: Condition, most: int) -> tuple[int, int] | None:
    """Return the least and the greatest number that satisfy a condition; None where there is none.

    A condition that a query without the number satisfies has no bounds that matter.
    """
    if condition.interval is None:
        numbers = [value for value in condition.values if isinstance(value, int)]
        return (1, most) if None in condition.values or not numbers else (min(numbers), max(numbers))
    interval = condition.interval
    low = 1 if interval.low is None else max(1, interval.low + (not interval.low_closed))
    high = most if interval.high is None else min(most, interval.high - (not interval.high_closed))
    return (low, high) if low <= high else None


def _switch(book: Book, place: Place, name: str, condition: Condition, engine: Condition | None) -> Iterator[Problem]:
    flag = book.flags.get(name)
    if flag is None or condition.matches(None):
        return
    readers = (flag.owner, None, *flag.also) if engine is None or not engine.values else engine.values
    if any(_reads(flag, reader) for reader in readers):
        yield from _values(place, flag, condition)
    elif engine is None or not flag.released:
        yield place.problem(f"no release of {flag.owner} reads {name}, so it is never set", "when", "env", name)
    else:
        named = " and ".join("no engine" if reader is None else str(reader) for reader in readers)
        text = f"{name} is read by {', '.join((flag.owner, *flag.also))}; with {named} it is never set"
        yield place.problem(text, "when", "env", name)


def _reads(flag: FlagEntry, engine: Scalar) -> bool:
    """Whether a switch can count with an engine, as ``layer.why_unread`` says."""
    if flag.owner == AITER:
        return flag.released
    if engine is None:
        return flag.without_engine
    return engine in flag.also or (engine == flag.owner and flag.released)


def _values(place: Place, flag: FlagEntry, condition: Condition) -> Iterator[Problem]:
    """Values that the switch cannot have, or that are another spelling of the one that counts."""
    at = ("when", "env", flag.id)
    for value in condition.values:
        if not isinstance(value, str):
            continue
        if flag.values and value_of(flag, value) not in flag.values:
            yield place.unknown(f"{flag.id} is never", value, flag.values, *at)
        elif value_of(flag, value) != value:
            yield place.problem(f"{flag.id}={value} is read as {value_of(flag, value)!r}", *at)
