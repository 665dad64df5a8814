"""One word for an operator, from the findings and from what could be known."""

from __future__ import annotations

from collections.abc import Sequence

from preshuffle.registry.check.deployment.evidence import Look
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.report import Verdict

CANNOT_WORK = frozenset({"unsupported", "version_unsupported", "pad_required", "known_bad"})


def verdict_of(findings: Sequence[Finding], look: Look) -> Verdict:
    """Judge: mismatch, unsupported, degraded, unknown or ok."""
    errors = {finding.code for finding in findings if finding.severity == "error"}
    if errors - CANNOT_WORK:
        return "mismatch"
    if errors:
        return "unsupported"
    if findings:
        return "degraded"
    w13 = look.scene.tensors.get("w13_weight")
    if w13 is None or w13.layout is None or not any("w13_weight" in run.reads for run in look.runs):
        return "unknown"
    return "ok"
