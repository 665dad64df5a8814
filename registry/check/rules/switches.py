"""Rules on environment switches that conflict or that nothing reads.

Codes: flag_conflict, flag_unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.entries import ContractEntry, FlagEntry
from preshuffle.registry.layer import (
    AITER,
    MoELayer,
    is_off_before,
    is_undecided,
    is_unread_by_version,
    refusal,
    value_of,
    why_refused,
    why_unlisted,
    why_unread,
)
from preshuffle.registry.values.finding import Finding


def flag_conflict(evidence: Evidence) -> Iterator[Finding]:
    """Yield switches that contradict each other or the bytes.

    A switch that the stated version does not read contradicts nothing.
    """
    for entry, _ in evidence.contracts:
        if entry.code == "flag_conflict" and not _rests_on_an_unread_switch(entry, evidence.layer):
            yield Finding.of("flag_conflict", entry.says, role=entry.role, fix=entry.fix, evidence=entry.evidence)
    yield from _forced_arch(evidence.layer)


def _rests_on_an_unread_switch(entry: ContractEntry, layer: MoELayer) -> bool:
    names = (fact.removeprefix("env.") for fact in entry.when if fact.startswith("env."))
    flags = (layer.book.flags.get(name) for name in names)
    return any(flag is not None and is_unread_by_version(flag, layer.query) for flag in flags)


def _forced_arch(layer: MoELayer) -> Iterator[Finding]:
    """Yield a ``GPU_ARCHS`` that names another GPU than the deployment's.

    AITER then lays out and dispatches for that one.
    """
    named = [arch.strip() for arch in layer.query.env.get("GPU_ARCHS", "").split(";") if arch.strip()]
    forced = named[-1].split(":")[0] if named else "native"
    if forced not in ("native", layer.query.arch):
        yield Finding.of(
            "flag_conflict",
            f"GPU_ARCHS={layer.query.env['GPU_ARCHS']} makes AITER choose for {forced}; the GPU is {layer.query.arch}",
            expected=layer.query.arch,
            actual=forced,
            fix=f"unset GPU_ARCHS where AITER runs, or put {layer.query.arch} last in it",
        )


def flag_unknown(evidence: Evidence) -> Iterator[Finding]:
    """Yield switches that this version does not read."""
    layer = evidence.layer
    for name, value in layer.query.env.items():
        flag = layer.book.flags.get(name)
        refused = why_refused(flag, value, layer.query) if flag is not None else None
        if flag is not None and refused:
            yield refusal(flag, value, refused)
            continue
        reason = _unread(flag, layer) if flag is not None else why_unlisted(name, layer.book)
        if reason:
            yield Finding.of(
                "flag_unknown",
                f"{name}={value} changes nothing: {reason}",
                actual=f"{name}={value}",
                fix=f"unset {name}",
                evidence=flag.evidence if flag else (),
            )


def _unread(flag: FlagEntry, layer: MoELayer) -> str | None:
    engine = layer.query.engine
    if is_undecided(flag, layer.query) or is_off_before(flag, layer.query.env[flag.id], layer.query):
        return None
    if flag.owner == AITER:
        return why_unread(flag, layer.query, newest=False)
    if not flag.released:
        return None if flag.without_engine and engine is None else f"no release of {flag.owner} reads it"
    if engine is None or engine.name in flag.also:
        return None  # who reads it is not known, or it is a plugin's inside this engine
    if flag.values and value_of(flag, layer.query.env[flag.id]) not in flag.values:
        valid = ", ".join(flag.values)
        return f"{layer.query.env[flag.id]!r} is none of its values ({valid})" if engine.name == flag.owner else None
    return why_unread(flag, layer.query, newest=False)
