"""Judgements of one layer under several AITER versions, as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.values.finding import Finding


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is wrong with a layer under one AITER.

    Attributes:
        evidence: of the most plausible call.
        findings: errors first.
        certain: whether nothing was acquitted that may not be so.
        note: what the answer rests on.
    """

    evidence: Evidence
    findings: tuple[Finding, ...]
    certain: bool = True
    note: str | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that are errors."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def in_every_version(first: Judgement, others: Iterator[Judgement]) -> Judgement:
    """Return what is wrong whichever AITER runs.

    An error counts only if every version has some. Where one has none, the layer is right or wrong depending on what
    was not stated. Warnings alone stop nothing: they are compared with the oldest version only.

    Args:
        first: under the most plausible version.
        others: under the other versions, the oldest first; read only as far as they matter.
    """
    if not first.errors:
        oldest = next(others, None) if first.findings else None
        return first if oldest is None or oldest.errors else _shared(first, oldest)
    shared = {finding.code for finding in first.findings}
    for other in others:
        if not other.errors:
            return _undecided(first, other)
        shared &= _codes(other)
    certain = tuple(finding for finding in first.errors if finding.code in shared) or first.errors
    warnings = tuple(finding for finding in first.findings if finding.severity == "warning" and finding.code in shared)
    return replace(first, findings=certain + warnings)


def _codes(judged: Judgement) -> set[str]:
    """Return codes of findings; kernels are told of the newest AITER, so whether they are tuned is, too."""
    return {finding.code for finding in judged.findings} | {"untuned"}


def _shared(first: Judgement, oldest: Judgement) -> Judgement:
    """Return warnings that the oldest version has, too; all of them where both have some, and none in common."""
    shared = tuple(finding for finding in first.findings if finding.code in _codes(oldest))
    return replace(first, findings=shared) if shared or not oldest.findings else first


def _undecided(first: Judgement, other: Judgement) -> Judgement:
    """Return the judgement of a layer that is wrong with one AITER and right with another."""
    codes = {finding.code for finding in other.findings}
    warnings = tuple(f for f in first.findings if f.severity == "warning" and f.code in codes)
    wrong, right = first.evidence.layer.query.aiter, other.evidence.layer.query.aiter
    error = first.errors[0]
    note = (
        f"with AITER {wrong} there is {error.code} ({error.message}), with {right} there is none: say which AITER runs"
    )
    return replace(first, findings=warnings, certain=False, note=note)
