"""Environment switches, read through the book only: who reads one, what it is worth, and what nobody reads."""

from __future__ import annotations

from dataclasses import dataclass

from preshuffle.registry.books import Book
from preshuffle.registry.decision import Finding
from preshuffle.registry.entries import FlagEntry
from preshuffle.registry.errors import FieldProblem, QueryError
from preshuffle.registry.query import Query
from preshuffle.registry.versions import version_key

AITER = "aiter"
_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE = frozenset({"0", "false", "no", "off", "n", "f", ""})


def value_of(flag: FlagEntry, text: str) -> str:
    """Return what a switch's text means: one spelling where it is read as true or false, else the text itself."""
    if flag.boolean:
        word = text.strip().lower()
        return "1" if word in _TRUE else "0" if word in _FALSE else text
    return text


@dataclass(frozen=True, slots=True)
class Switches:
    """The switches that count for a query.

    Attributes:
        values: effective value by name, defaults included; a switch without default that is not set is absent.
        honoured: the switches that the query sets and that count, with what their value means.
        findings: switches that the query sets and nobody reads.
    """

    values: dict[str, str]
    honoured: dict[str, str]
    findings: tuple[Finding, ...]


def read_switches(query: Query, book: Book) -> Switches:
    """Interpret a query's environment.

    Raises:
        QueryError: a switch that counts has a value that it cannot have.
    """
    values: dict[str, str] = {}
    honoured: dict[str, str] = {}
    findings: list[Finding] = []
    problems: list[FieldProblem] = []
    for flag in book.flags.values():
        unread = why_unread(flag, query)
        given = query.env.get(flag.id)
        given = None if given is None else value_of(flag, given)
        if unread is None:
            value = _default(flag, query) if given is None else given
            if value is not None:
                values[flag.id] = value
            if given is not None and flag.values and given not in flag.values:
                valid = tuple(f"{name} ({meaning})" for name, meaning in flag.values.items())
                problems.append(FieldProblem(f"env.{flag.id}", f"{given!r} has no meaning", valid))
            elif given is not None:
                honoured[flag.id] = flag.values.get(given, flag.meaning)
        elif given is not None:
            message = f"{flag.id}={given} changes nothing: {unread}"
            fix = f"unset {flag.id}"
            findings.append(Finding.of("flag_unknown", message, actual=given, fix=fix, evidence=flag.evidence))
    if problems:
        raise QueryError(problems)
    return Switches(values, honoured, tuple(findings))


def _default(flag: FlagEntry, query: Query) -> str | None:
    """Return what a switch is worth unset; nothing in an engine that reads it only where a plugin is there."""
    return None if query.engine and query.engine.name in flag.also else flag.default


def why_unread(flag: FlagEntry, query: Query) -> str | None:
    """Return why a switch does not count for a query, or None where it does."""
    if flag.owner == AITER:
        return _outside(flag, query.aiter)
    if query.engine is None:
        return None if flag.without_engine else f"it is {flag.owner}'s, and the query names no engine"
    if query.engine.name in flag.also:
        return None  # a plugin's, or another engine's by the same name; the owner's versions say nothing there
    if query.engine.name != flag.owner:
        return f"it is {flag.owner}'s, and the engine is {query.engine.name}"
    if not flag.released:
        return f"no release of {flag.owner} reads it"
    return _outside(flag, query.engine.version)


def _outside(flag: FlagEntry, version: str | None) -> str | None:
    if version is None:
        return None
    key = version_key(version)
    if flag.since and key < version_key(flag.since):
        return f"{flag.owner} {version} does not read it yet; {flag.since} is the first"
    if flag.until and key >= version_key(flag.until):
        return f"{flag.owner} {version} reads it no more; {flag.until} removed it"
    return None
