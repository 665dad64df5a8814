"""Dispatch behaviour of an AITER version: its rules and numbers."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from preshuffle.registry.base.versions import local_commit, on_the_way_to, version_key
from preshuffle.registry.kernels.aiter_versions.dispatch_book import (
    BehaviourData,
    OneStageEntry,
    dispatch_book,
)

OneStageKey = tuple[str, str, str, str, str, bool, bool]


@dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """Dispatch behaviour of one AITER version.

    Attributes:
        key: The version whose timeline entry applies last; equal behaviours share it.
        data: The behaviour as the book has it.
        notes: What an answer given by it must say.
        env: Environment variables that the version reads.
        one_stage: Combinations with a 1-stage kernel, by architecture.
        activation_env: Variables that the activation rules read.
    """

    key: str
    data: BehaviourData
    notes: tuple[str, ...]
    env: frozenset[str]
    one_stage: dict[str, frozenset[OneStageKey]]
    activation_env: tuple[str, ...]


def _one_stage_keys(entries: tuple[OneStageEntry, ...]) -> frozenset[OneStageKey]:
    return frozenset(
        (activation, entry.quant_type, entry.dtype, entry.a, entry.w, entry.g1u1, entry.doweight)
        for entry in entries
        for activation in entry.activation
    )


@lru_cache(maxsize=64)
def _known(version: str, notes: tuple[str, ...]) -> Behaviour:
    book = dispatch_book()
    key = version_key(version)
    applied = [entry for entry in book.timeline if version_key(entry.since) <= key] or [book.timeline[0]]
    merged: dict[str, Any] = {}
    for entry in applied:
        merged.update(entry.set)
    data = BehaviourData.model_validate(merged)
    exact = version_key(applied[-1].since) == version_key(book.timeline[-1].since)
    assumed = () if exact else tuple(text for entry in applied[1:] for text in entry.assumed)
    rule_env = {name for rule in data.activation_rules for name in rule.when.get("env", {})}
    return Behaviour(
        key=applied[-1].since,
        data=data,
        notes=notes + assumed,
        env=frozenset(name for name, since in book.env_since.items() if version_key(since) <= key),
        one_stage={gfx: _one_stage_keys(entries) for gfx, entries in data.one_stage_dict.items()},
        activation_env=tuple(sorted(rule_env)),
    )


def is_newest(version: str) -> bool:
    """Return whether a development build's commit is the newest known AITER."""
    return _by_commit(version) == "newest"


def _by_commit(version: str) -> str | None:
    commit = local_commit(version)
    if commit is None:
        return None
    for known, meaning in dispatch_book().commits.items():
        if commit.startswith(known) or known.startswith(commit):
            return meaning
    return None


@lru_cache(maxsize=512)
def behaviour_of(aiter: str | None) -> Behaviour:
    """Return how an AITER version behaves.

    Args:
        aiter: A PEP 440 version; None, and versions newer than any known, get the newest known behaviour with a note.

    Raises:
        InvalidVersionError: ``aiter`` is not a version.

    Example:
        >>> behaviour_of("0.1.13").data.act_type, behaviour_of("0.1.20").data.act_type
        ('exact', 'any')
    """
    book = dispatch_book()
    newest = book.newest
    if aiter is None:
        return _known(newest, (f"no AITER version given: answered as {book.newest_label}",))
    if is_newest(aiter):
        return _known(newest, ())
    key = version_key(aiter)
    if key > version_key(newest):
        return _known(newest, (f"AITER {aiter} is newer than the newest known: answered as {book.newest_label}",))
    oldest = book.timeline[0].since
    if key < version_key(oldest):
        return _known(oldest, (f"AITER {aiter} is older than the oldest known: answered as {oldest}",))
    open_ones = [entry.since for entry in book.timeline if on_the_way_to(aiter, entry.since)]
    if not open_ones:
        return _known(aiter, ())
    changes = " and ".join(open_ones)
    note = f"AITER {aiter} is a development build: which changes of {changes} it has is not known"
    before = [
        entry.since for entry in book.timeline if version_key(entry.since) < min(map(version_key, (aiter, *open_ones)))
    ]
    return _known(before[-1], (note,))
