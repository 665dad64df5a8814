"""Codes and fixes of findings: what an engine reads in the reply."""

from __future__ import annotations

from collections.abc import Iterable

from preshuffle.registry.base.limits import MAX_PROBLEMS, more
from preshuffle.registry.values.finding import Finding, FindingCode


def codes_of(findings: Iterable[Finding]) -> tuple[FindingCode, ...]:
    """Return the codes of findings, each once, those of errors first."""
    return tuple(dict.fromkeys(finding.code for finding in _errors_first(findings)))


def fixes_of(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return the fixes of findings, each once, those of errors first.

    At most ``MAX_PROBLEMS``; one more sentence then counts the rest.
    """
    fixes = tuple(dict.fromkeys(finding.fix for finding in _errors_first(findings) if finding.fix))
    hidden = len(fixes) - MAX_PROBLEMS
    return fixes if hidden <= 0 else (*fixes[:MAX_PROBLEMS], more(hidden, "fixes"))


def _errors_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.severity != "error")
