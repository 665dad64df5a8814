"""flag_conflict, flag_unknown: environment switches against each other, against the bytes, and against their owners."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.check.deployment.evidence import Look
from preshuffle.registry.check.deployment.observed_layer import Scene
from preshuffle.registry.entries import FlagEntry
from preshuffle.registry.layer import AITER, is_undecided, value_of, why_unlisted, why_unread
from preshuffle.registry.values.finding import Finding


def flag_conflict(look: Look) -> Iterator[Finding]:
    """Two switches contradict each other, or a switch says other than what was done."""
    for entry, _ in look.contracts:
        if entry.code == "flag_conflict":
            yield Finding.of("flag_conflict", entry.says, role=entry.role, fix=entry.fix, evidence=entry.evidence)
    yield from _forced_arch(look.scene)


def _forced_arch(scene: Scene) -> Iterator[Finding]:
    """``GPU_ARCHS`` makes AITER lay out and dispatch for a GPU that may not be the one that is there."""
    named = [arch.strip() for arch in scene.query.env.get("GPU_ARCHS", "").split(";") if arch.strip()]
    forced = named[-1].split(":")[0] if named else "native"
    if forced not in ("native", scene.query.arch):
        yield Finding.of(
            "flag_conflict",
            f"GPU_ARCHS={scene.query.env['GPU_ARCHS']} makes AITER choose for {forced}; the GPU is {scene.query.arch}",
            expected=scene.query.arch,
            actual=forced,
            fix=f"unset GPU_ARCHS where AITER runs, or put {scene.query.arch} last in it",
        )


def flag_unknown(look: Look) -> Iterator[Finding]:
    """A switch that this version does not read changes nothing, whatever it was meant to do."""
    scene = look.scene
    for name, value in scene.query.env.items():
        flag = scene.book.flags.get(name)
        reason = _unread(flag, scene) if flag is not None else why_unlisted(name, scene.book)
        if reason:
            yield Finding.of(
                "flag_unknown",
                f"{name}={value} changes nothing: {reason}",
                actual=f"{name}={value}",
                fix=f"unset {name}",
                evidence=flag.evidence if flag else (),
            )


def _unread(flag: FlagEntry, scene: Scene) -> str | None:
    engine = scene.query.engine
    if is_undecided(flag, scene.query):
        return None
    if flag.owner == AITER:
        return why_unread(flag, scene.query, newest=False)
    if not flag.released:
        return None if flag.without_engine and engine is None else f"no release of {flag.owner} reads it"
    if engine is None or engine.name in flag.also:
        return None  # who reads it is not known, or it is a plugin's inside this engine
    if flag.values and value_of(flag, scene.query.env[flag.id]) not in flag.values:
        valid = ", ".join(flag.values)
        return f"{scene.query.env[flag.id]!r} is none of its values ({valid})" if engine.name == flag.owner else None
    return why_unread(flag, scene.query, newest=False)
