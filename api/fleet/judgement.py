"""What a registry finds in a report: kept beside it in the store, so that a list needs no registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter

from preshuffle.api.fleet.comparison import LayoutComparison, compare
from preshuffle.api.fleet.deployments import Group, ReplicaReport
from preshuffle.api.fleet.states import State, state_of
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import PreshuffleError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report, Verdict, worst


class GroupJudgement(Frozen):
    """What was found in a group of layers, and what a list says of it."""

    layers: str
    model: str
    arch: str
    engine: str | None
    verdict: Verdict
    findings: tuple[Finding, ...]
    recipe: str | None
    decision_digest: str | None
    drifted: bool
    w13_weight: LayoutComparison


_GROUPS: Final = TypeAdapter(tuple[GroupJudgement, ...])
Baseline = tuple[str | None, ...]
"""Per group the decision digest that drift is measured from: what the engine told, or what was decided when it
reported; None where neither is known."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one registry finds in one report.

    Attributes:
        by: the registry and its kernel tables, see ``judge_name``.
        baseline: kept until the replica reports something else.
    """

    by: str
    groups: tuple[GroupJudgement, ...]
    baseline: Baseline

    @property
    def verdict(self) -> Verdict:
        """The worst of its groups'."""
        return worst(group.verdict for group in self.groups)

    @property
    def drifted(self) -> bool:
        """Whether any group is not what the registry decides."""
        return any(group.drifted for group in self.groups)

    @property
    def state(self) -> State:
        """The state of a replica that is heard of."""
        return state_of(self.verdict, drifted=self.drifted)

    @property
    def text(self) -> str:
        """The groups as JSON."""
        return _GROUPS.dump_json(self.groups).decode()


def read_groups(text: str) -> tuple[GroupJudgement, ...]:
    """Read what ``Judgement.text`` wrote."""
    return _GROUPS.validate_json(text)


def judge_name(registry: Registry) -> str:
    """Return the name under which a registry's judgements are stored: digests of the book and of the kernel tables."""
    tables = registry.tables.digest if registry.tables is not None else ""
    return f"{registry.digest}+{tables}"


def judge(report: ReplicaReport, registry: Registry, baseline: Baseline | None = None) -> Judgement:
    """Check every group of a report, and decide its query.

    Args:
        report: what a replica told.
        registry: that is asked.
        baseline: what drift is measured from; None for a report that is new.
    """
    decisions = [_decide(group.observation.query, registry) for group in report.groups]
    if baseline is None or len(baseline) != len(decisions):
        baseline = tuple(map(_first_baseline, report.groups, decisions))
    groups = [
        _judge_group(group, decision, before, registry.check(group.observation), registry)
        for group, decision, before in zip(report.groups, decisions, baseline, strict=True)
    ]
    return Judgement(judge_name(registry), tuple(groups), baseline)


def has_drifted(before: str | None, decision: Decision | None) -> bool:
    """Whether the registry decides otherwise than before. What was decided before may be unknown: then no."""
    return before is not None and (decision is None or decision.decision_digest != before)


def _decide(query: Query, registry: Registry) -> Decision | None:
    try:
        return registry.resolve(query, kernels=False)
    except PreshuffleError:
        return None


def _first_baseline(group: Group, decision: Decision | None) -> str | None:
    if group.decision_digest is not None:
        return group.decision_digest
    return decision.decision_digest if decision is not None else None


def _judge_group(
    group: Group, decision: Decision | None, before: str | None, report: Report, registry: Registry
) -> GroupJudgement:
    query, applied = group.observation.query, group.observation.applied
    tensor = decision.tensors.get("w13_weight") if decision else None
    return GroupJudgement(
        layers=group.layers,
        model=query.model,
        arch=query.arch,
        engine=str(query.engine) if query.engine else None,
        verdict=report.verdict,
        findings=report.findings,
        recipe=decision.recipe if decision else None,
        decision_digest=decision.decision_digest if decision else None,
        drifted=has_drifted(before, decision),
        w13_weight=compare(registry.book, tensor, applied.tensors.get("w13_weight")),
    )
