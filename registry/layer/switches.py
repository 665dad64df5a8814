"""Environment switches: who reads them, their values, unread ones.

They are interpreted through the book only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.versions import on_the_way_to, version_key
from preshuffle.registry.entries import FlagEntry
from preshuffle.registry.kernels import dispatch_book, is_newest
from preshuffle.registry.loading import Book
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query

AITER = "aiter"
_RELEASE = "name the release that the build has the changes of"
_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE = frozenset({"0", "false", "no", "off", "n", "f", ""})
_LONGEST = 64
"""Characters of a name that is compared with the book's switches."""
_MIN_LENGTH = 12
"""Shortest name that is tested for typing errors: other software reads names similar to shorter ones."""


def value_of(flag: FlagEntry, text: str) -> str:
    """Return a switch's value in canonical spelling.

    One spelling where it is read as true or false, else the text itself.
    """
    if flag.boolean:
        word = text.strip().lower()
        return "1" if word in _TRUE else "0" if word in _FALSE else text
    return text.lower().replace("-", "_") if flag.choices else text


def why_refused(flag: FlagEntry, text: str, query: Query) -> str | None:
    """Return why a query's engine refuses an option's value.

    None where it takes it, or that is not known.
    """
    engine = query.engine
    choices = flag.choices.get(engine.name) if engine else None
    if engine is None or choices is None:
        return None
    value = value_of(flag, text)
    if value not in choices:
        return f"{engine.name} takes only {', '.join(choices)}"
    since, version = choices[value], engine.version
    if not since or not version or on_the_way_to(version, since) or version_key(version) >= version_key(since):
        return None
    return f"{engine.name} {version} does not take it yet; {since} is the first"


@dataclass(frozen=True, slots=True, eq=False)
class Switches:
    """Effective switches of a query.

    It is shared between queries and never changed.

    Attributes:
        values: effective value by name, defaults included; a switch without default that is not set is absent.
        facts: the same under the names that conditions use (``env.NAME``).
        honoured: the switches that the query sets and that count, with what their value means.
        findings: switches that the query sets and nobody reads.
        assumed: those of the findings that rest on a version which the query leaves out or nobody can place.
        sets: query fields that the query's switches give, by field, where the query leaves the field out.
        problems: switches that count and have a value that they cannot have; they stand at their default.
    """

    values: Mapping[str, str]
    facts: Mapping[str, str]
    honoured: Mapping[str, str]
    findings: tuple[Finding, ...]
    sets: Mapping[str, str]
    problems: tuple[FieldProblem, ...] = ()
    assumed: tuple[Finding, ...] = ()


def read_switches(query: Query, book: Book, memo: Memo | None = None) -> Switches:
    """Interpret a query's environment.

    Args:
        query: whose engine, AITER version and environment count.
        book: the switches that are known.
        memo: stores the result by engine, AITER version and environment.
    """
    memo = memo or Memo()
    key = (query.engine, query.aiter, *sorted(query.env.items()))
    return memo.get("switches", key, lambda: _read(query, book, memo))


def _read(query: Query, book: Book, memo: Memo) -> Switches:
    defaults = memo.get("switch defaults", (query.engine, query.aiter), lambda: _defaults(query, book))
    values: dict[str, str] = dict(defaults)
    honoured: dict[str, str] = {}
    findings: list[Finding] = []
    assumed: list[Finding] = []
    problems: list[FieldProblem] = []
    for name in sorted(query.env.keys() & book.flags.keys()):
        flag, given = book.flags[name], value_of(book.flags[name], query.env[name])
        unread = why_unread(flag, query)
        if unread is not None and is_off_before(flag, given, query):
            continue
        if unread is not None:
            undecided = is_undecided(flag, query)
            effect, fix = ("is not counted on", _RELEASE) if undecided else ("changes nothing", f"unset {name}")
            message = f"{name}={given} {effect}: {unread}"
            findings.append(Finding.of("flag_unknown", message, actual=given, fix=fix, evidence=flag.evidence))
            if undecided or why_unread(flag, query, newest=False) is None:
                assumed.append(findings[-1])
        elif refused := why_refused(flag, given, query):
            findings.append(refusal(flag, query.env[name], refused))
        elif flag.values and given not in flag.values:
            valid = tuple(f"{value} ({meaning})" for value, meaning in flag.values.items())
            problems.append(FieldProblem(f"env.{name}", f"{given!r} has no meaning", valid))
        else:
            values[name] = given
            honoured[name] = flag.values.get(given, flag.meaning)
    for name, text in query.env.items():
        if name not in book.flags and (reason := why_unlisted(name, book)):
            message = f"{name}={text} changes nothing: {reason}"
            findings.append(Finding.of("flag_unknown", message, actual=text, fix=f"unset {name}"))
    facts = {f"env.{name}": value for name, value in values.items()}
    sets: dict[str, str] = {field: values[name] for name in honoured if (field := book.flags[name].sets) is not None}
    return Switches(values, facts, honoured, tuple(findings), sets, tuple(problems), tuple(assumed))


def refusal(flag: FlagEntry, text: str, reason: str) -> Finding:
    """Return the finding on an option's value that the engine refuses."""
    message, fix = f"{flag.id}={text} is refused: {reason}", f"take one of the values of {flag.id}, or unset it"
    return Finding.of("flag_unknown", message, actual=f"{flag.id}={text}", fix=fix, evidence=flag.evidence)


def _defaults(query: Query, book: Book) -> dict[str, str]:
    """Return the values of switches that are read but not set."""
    read = ((flag.id, _default(flag, query)) for flag in book.flags.values() if why_unread(flag, query) is None)
    return {name: value for name, value in read if value is not None}


def _default(flag: FlagEntry, query: Query) -> str | None:
    """Return the default of a switch; None in an engine that reads it only through a plugin."""
    return None if query.engine and query.engine.name in flag.also else flag.default


def why_unread(flag: FlagEntry, query: Query, *, newest: bool = True) -> str | None:
    """Return why a query's engine ignores a switch, or None.

    Args:
        flag: the switch.
        query: whose engine and versions count.
        newest: whether a version that the query leaves out is the newest one; else nothing is concluded from it.
    """
    if flag.owner == AITER:
        return _outside(flag, query.aiter, newest) if flag.released else f"no release of {AITER} reads it"
    if query.engine is None:
        return None if flag.without_engine else f"it is {flag.owner}'s, and the query names no engine"
    if query.engine.name in flag.also:
        return None  # a plugin's, or another engine's by the same name; the owner's versions say nothing there
    if query.engine.name != flag.owner:
        return f"it is {flag.owner}'s, and the engine is {query.engine.name}"
    if not flag.released:
        return f"no release of {flag.owner} reads it"
    return _outside(flag, query.engine.version, newest)


def is_unread_by_version(flag: FlagEntry, query: Query) -> bool:
    """Return whether the owner's stated version is known to ignore a switch.

    False where no version is stated, or the engine is another that may read a switch of that name.
    """
    if is_undecided(flag, query):
        return False
    if flag.owner == AITER:
        return _outside(flag, query.aiter, newest=False) is not None
    is_owner = query.engine is not None and query.engine.name == flag.owner
    return is_owner and _outside(flag, query.engine.version if query.engine else None, newest=False) is not None


def why_unlisted(name: str, book: Book) -> str | None:
    """Return why nobody reads a switch that the book lacks.

    None where somebody else may read it.
    """
    for entry in book.entries["switch_patterns"].values():
        if any(fnmatchcase(name, pattern) for pattern in entry.patterns):
            near = get_close_matches(name, book.flags, n=1, cutoff=0.8) if len(name) <= _LONGEST else ()
            known = f"; the book knows {near[0]}" if near else ""
            return f"no known version of {entry.owner} reads it{known}"
    meant = misspelled_switch(name, book.flags)
    if meant is None:
        return None
    return f"nothing reads that name; it is one typing error away from {meant} of {book.flags[meant].owner}"


def misspelled_switch(name: str, flags: Iterable[str]) -> str | None:
    """Return the known switch that a name misspells by one typing error.

    That is wrong case, or one character wrong, missing, extra or swapped. A wrong digit is no typing error, and names
    as short as ``CU_NUM`` are left out: other software has similar ones.

    Example:
        >>> misspelled_switch("ATOM_MOE_GUITLV", ["ATOM_MOE_GU_ITLV"])
        'ATOM_MOE_GU_ITLV'
        >>> misspelled_switch("ATOM_MORI_V1", ["ATOM_MORI_V2"]) is None
        True
    """
    return next((flag for flag in flags if len(flag) >= _MIN_LENGTH and _is_one_typo(name, flag)), None)


def _is_one_typo(name: str, flag: str) -> bool:
    if name == flag or abs(len(name) - len(flag)) > 1:
        return False
    if name.upper() == flag.upper():
        return True
    start = next((i for i, (a, b) in enumerate(zip(name, flag, strict=False)) if a != b), min(len(name), len(flag)))
    typed, known = name[start:], flag[start:]
    if len(typed) != len(known):
        longer, shorter = (typed, known) if len(typed) > len(known) else (known, typed)
        return longer[1:] == shorter and not longer[0].isdigit()
    if typed[1:] == known[1:]:
        return not (typed[0].isdigit() and known[0].isdigit())
    swapped = typed[1::-1] + typed[2:] == known
    return swapped and not typed[:2].isdigit()


def is_undecided(flag: FlagEntry, query: Query) -> bool:
    """Say whether it is unknown if a build reads a switch.

    So it is of a development build before a release that changed that.
    """
    version = query.aiter if flag.owner == AITER else query.engine.version if query.engine else None
    if version is None or (flag.owner == AITER and is_newest(version)):
        return False
    return any(on_the_way_to(version, release) for release in (flag.since, flag.until) if release)


def is_off_before(flag: FlagEntry, value: str, query: Query) -> bool:
    """Say whether a switch turns off what its owner lacks.

    That changes nothing, and nothing else is wanted: a launch script for several releases does so.
    """
    version = query.aiter if flag.owner == AITER else query.engine.version if query.engine else None
    if version is None or flag.since is None or not flag.default == "0" == value_of(flag, value):
        return False
    if flag.owner != AITER and (query.engine is None or query.engine.name != flag.owner):
        return False
    if flag.owner == AITER and is_newest(version):
        return False
    return version_key(version) < version_key(flag.since)


def _outside(flag: FlagEntry, version: str | None, newest: bool) -> str | None:
    if version is None:
        gone = flag.removed or (f"{flag.until} removed it" if flag.until else None)
        return f"{flag.owner} reads it no more; {gone}" if newest and gone else None
    if flag.owner == AITER and is_newest(version):
        version = dispatch_book().newest
    key = version_key(version)
    for release in (flag.since, flag.until):
        if release and on_the_way_to(version, release):
            what = "reads it" if release == flag.since else "still reads it"
            build = f"it is a development build that may be older than {release}"
            return f"whether {flag.owner} {version} {what} is not known: {build}"
    if flag.since and key < version_key(flag.since):
        return f"{flag.owner} {version} does not read it yet; {flag.since} is the first"
    if flag.until and key >= version_key(flag.until):
        return f"{flag.owner} {version} reads it no more; {flag.until} removed it"
    return None
