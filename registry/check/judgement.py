"""Judgements of one layer under several AITER versions, as one."""

from __future__ import annotations

from collections.abc import Iterable
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


def in_every_version(first: Judgement, others: Iterable[Judgement]) -> Judgement:
    """Return what is wrong whichever AITER runs.

    An error counts only if every version has some. Where one has none, the layer is right or wrong depending on what
    was not stated.

    Args:
        first: under the most plausible version.
        others: under the other versions; read only as far as they matter.
    """
    shared = {finding.code for finding in first.findings}
    kept, clean = shared, False
    for other in others if first.findings else ():
        if first.errors and not other.errors:
            return _undecided(first, other)
        codes = {finding.code for finding in other.findings} | {"untuned"}  # told of the newest AITER's kernels
        shared = shared & codes
        clean = clean or not other.findings
        if not shared and clean:
            break
    if not first.errors:
        kept = shared if shared or clean else kept
        return replace(first, findings=tuple(finding for finding in first.findings if finding.code in kept))
    certain = tuple(finding for finding in first.errors if finding.code in shared) or first.errors
    warnings = tuple(finding for finding in first.findings if finding.severity == "warning" and finding.code in shared)
    return replace(first, findings=certain + warnings)


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
