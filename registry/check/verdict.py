"""Verdict of a check, from its findings and what was observed."""

from __future__ import annotations

from collections.abc import Sequence

from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.report import Verdict

_CANNOT_WORK = frozenset({"unsupported", "version_unsupported", "pad_required", "known_bad"})


def verdict_of(findings: Sequence[Finding], evidence: Evidence) -> Verdict:
    """Return the verdict: mismatch, unsupported, degraded, unknown or ok."""
    errors = {finding.code for finding in findings if finding.severity == "error"}
    if errors - _CANNOT_WORK:
        return "mismatch"
    if errors:
        return "unsupported"
    if findings:
        return "degraded"
    w13 = evidence.layer.tensors.get("w13_weight")
    if w13 is None or w13.layout is None or not any("w13_weight" in run.reads for run in evidence.runs):
        return "unknown"
    return "ok"
