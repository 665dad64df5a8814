"""Facts of a replica, by which lists are filtered and sorted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from preshuffle.api.fleet.advice import codes_of
from preshuffle.api.fleet.deployments import ReplicaReport
from preshuffle.api.fleet.judgement import GroupJudgement, Judgement
from preshuffle.api.fleet.states import State
from preshuffle.registry.base.invisible import escape_invisible
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.report import MEANINGS, rank

MAX_CAUSE: Final = 200
"""Characters of a cause."""
_SHORT: Final = 40
_LONG: Final = 140
"""A longer headline ends with a clause before."""
_CLAUSE: Final = re.compile(r"[:;.] ")
_ASIDE: Final = re.compile(r" \([^()]*\)")
DRIFT: Final = "the registry decides otherwise now than when it was loaded"


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What one replica runs, and what is wrong with it.

    Attributes:
        node: its machine.
        models: of its groups of layers, each once.
        archs: GPUs, as gfx names.
        engines: ``name`` or ``name@version``.
        sizes: tensor and expert parallel sizes, as ``TP8`` or ``TP8/EP8``.
        codes: of all findings, errors first.
        cause: the gravest finding's headline, or why the state is what it is; None where nothing is wrong.
        digest: of the current decision for the worst group.
        stage: of its pipeline, counted from 0; None without one.
        stages: how many its pipeline has.
    """

    node: str | None
    models: tuple[str, ...]
    archs: tuple[str, ...]
    engines: tuple[str, ...]
    sizes: tuple[str, ...]
    codes: tuple[str, ...]
    cause: str | None
    digest: str | None
    stage: int | None = None
    stages: int | None = None


def facts_of(report: ReplicaReport, judgement: Judgement) -> ReplicaFacts:
    """Return the facts of a judged report."""
    groups = sorted(judgement.groups, key=lambda group: -rank(group.verdict))
    queries = [group.observation.query for group in report.groups]
    cause = cause_of(groups, judgement.state)
    return ReplicaFacts(
        node=None if report.node is None else escape_invisible(report.node),
        models=_once(escape_invisible(query.model) for query in queries),
        archs=_once(group.arch for group in judgement.groups) or _once(query.arch for query in queries),
        engines=_once(str(query.engine) for query in queries if query.engine),
        sizes=_once(f"TP{query.tp}" + (f"/EP{query.ep}" if query.ep > 1 else "") for query in queries),
        codes=codes_of(finding for group in groups for finding in group.findings),
        cause=None if cause is None else escape_invisible(cause),
        digest=groups[0].decision_digest if groups else None,
        stage=report.pipeline.stage if report.pipeline else None,
        stages=report.pipeline.stages if report.pipeline else None,
    )


def cause_of(groups: Sequence[GroupJudgement], state: State) -> str | None:
    """Return why a replica is in a state.

    None where nothing is wrong.

    Args:
        groups: its judged groups, the worst first.
        state: its state.
    """
    if state == "drifted":
        return DRIFT
    if state == "ok" or not groups:
        return None
    findings = _gravest_first(groups[0].findings)
    return headline(findings[0]) if findings else MEANINGS[groups[0].verdict]


def headline(finding: Finding) -> str:
    """Return a finding in one short sentence: role and message, without asides.

    Example:
        >>> headline(Finding.of("pad_fill", "padding is 7 (not zero)", role="w13_weight"))
        'w13_weight: padding is 7'
    """
    text = " ".join(_ASIDE.sub("", finding.message).split())
    named = text if finding.role is None or finding.role in text else f"{finding.role}: {text}"
    if len(named) > _LONG:
        ends = [match.start() for match in _CLAUSE.finditer(named, _SHORT, _LONG)]
        named = named[: ends[-1]] if ends else named
    return shortened(named)


def shortened(text: str) -> str:
    """Return a text of at most ``MAX_CAUSE`` characters, cut between words."""
    if len(text) <= MAX_CAUSE:
        return text
    kept = text[: MAX_CAUSE - 1]
    return f"{kept.rpartition(' ')[0] or kept}…"


def silence_cause(seen_at: datetime) -> str:
    """Return the cause of ``stale``."""
    return f"silent since {seen_at:%Y-%m-%d %H:%M:%S} UTC"


def _gravest_first(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
