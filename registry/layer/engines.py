"""Engine versions: what an answer must say of those not known."""

from __future__ import annotations

from functools import lru_cache

from preshuffle.registry.base.suggestions import suggestion
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.entries import EngineEntry
from preshuffle.registry.kernels import dispatch_book
from preshuffle.registry.loading import Book
from preshuffle.registry.values.query import Engine


def engine_notes(book: Book, engine: Engine | None, since: str | None = None) -> tuple[str, ...]:
    """Return what an answer must say of its engine.

    As for AITER: which release it is answered as, where the version is missing or outside the known releases; and that
    the release is written for a newer AITER than is known. Nothing is said of an engine that only an overlay's rules
    name, nor of an unknown one (``unknown_engine``).

    Args:
        book: the engines that are known.
        engine: the query's engine.
        since: the first release in which what the answer rests on was read; None for the engine's first known release.

    Example:
        >>> from preshuffle.registry import Registry
        >>> engine_notes(Registry.default().book, Engine(name="vllm", version="99.0"))[0]
        'vllm 99.0 is answered as vllm 0.33.0, the newest known'
    """
    entry = book.engines.get(engine.name) if engine else None
    if engine is None or entry is None:
        return ()
    return _notes(entry, engine.version, since or entry.first)


def unknown_engine(book: Book, engine: Engine | None) -> str | None:
    """Return a message that names the engines nearest to an unknown one.

    None where there is no engine, or an entry, a rule or another condition names it.
    """
    if engine is None or engine.name in book.engine_names:
        return None
    return f"unknown engine {engine.name!r}{suggestion(engine.name, sorted(book.engine_names))}"


def aiter_of(book: Book, engine: Engine) -> str | None:
    """Return the AITER that an engine's release is written for.

    None where no release is named, or the book does not know it.
    """
    entry = book.engines.get(engine.name)
    if entry is None or engine.version is None:
        return None
    newest = version_key(engine.version) >= version_key(entry.newest)
    return entry.aiter if newest else _aiter_before(entry, engine.version)


def read_after(book: Book, engine: Engine) -> bool:
    """Say whether some rule was first read in a later release."""
    if engine.version is None:
        return False
    key = version_key(engine.version)
    rules = (rule for rule in book.rules.values() if rule.since and rule.when.get("engine") == engine.name)
    return any(version_key(rule.since) > key for rule in rules if rule.since)


@lru_cache(maxsize=512)
def _notes(entry: EngineEntry, version: str | None, first: str) -> tuple[str, ...]:
    name, newest, aiter = entry.id, entry.newest, entry.aiter
    key = version_key(newest if version is None else version)
    if key < version_key(first):
        return (f"{name} {version} is answered as {name} {first}: what it does before {first} is not known",)
    if version is not None and key < version_key(newest):
        return _newer_aiter(name, version, _aiter_before(entry, version))
    notes: tuple[str, ...] = ()
    if version is None:
        notes = (f"no {name} version given: answered as {name} {newest}, the newest known",)
    elif key > version_key(newest):
        notes = (f"{name} {version} is answered as {name} {newest}, the newest known",)
    return notes + _newer_aiter(name, newest, aiter)


def _aiter_before(entry: EngineEntry, version: str) -> str | None:
    """Return the AITER that a release before the newest is written for, or None."""
    known = sorted(entry.aiter_before.items(), key=lambda item: version_key(item[0]))
    found = [aiter for release, aiter in known if version_key(release) <= version_key(version)]
    return found[-1] if found else None


def _newer_aiter(name: str, release: str, aiter: str | None) -> tuple[str, ...]:
    known = dispatch_book().newest
    if aiter is None or version_key(aiter) <= version_key(known):
        return ()
    return (f"{name} {release} is written for AITER {aiter}, newer than the newest known ({known})",)
