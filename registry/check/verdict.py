"""Verdict of a check, from its findings and what was observed."""

from __future__ import annotations

from preshuffle.registry.check.judgement import Judgement
from preshuffle.registry.values.report import Verdict

_CANNOT_WORK = frozenset({"unsupported", "version_unsupported", "pad_required", "known_bad"})


def verdict_of(judged: Judgement) -> Verdict:
    """Return the verdict: mismatch, unsupported, degraded, unknown or ok."""
    errors = {finding.code for finding in judged.errors}
    if errors - _CANNOT_WORK:
        return "mismatch"
    if errors:
        return "unsupported"
    if not judged.certain:
        return "unknown"
    if judged.findings:
        return "degraded"
    w13 = judged.evidence.layer.tensors.get("w13_weight")
    if w13 is None or w13.layout is None or not any("w13_weight" in run.reads for run in judged.evidence.runs):
        return "unknown"
    return "ok"
