"""Judgement of a report: verdict, findings and drift per group.

The store keeps it beside the report, so that a list needs no registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from time import thread_time
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from preshuffle.api.fleet.comparison import LayoutComparison, compare
from preshuffle.api.fleet.deployments import Group, ReplicaReport
from preshuffle.api.fleet.states import State, state_of
from preshuffle.registry.base.errors import FieldProblem, PreshuffleError, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.query import Query
from preshuffle.registry.values.report import Report, Verdict, worst

if TYPE_CHECKING:
    from preshuffle.registry import Registry
    from preshuffle.registry.values.decision import Decision


class GroupJudgement(Frozen):
    """Judgement of one group of layers, with what a list shows."""

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
"""Decision digest per group that drift is measured from.

It is what the engine reported, else what was decided when it reported; None where neither is known.
"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Judgement of one report by one registry.

    Attributes:
        by: name of the registry and its kernel tables, see ``judge_name``.
        baseline: stays until the replica reports something else.
        failed: whether the report could not be judged.
    """

    by: str
    groups: tuple[GroupJudgement, ...]
    baseline: Baseline
    failed: bool = False

    @property
    def verdict(self) -> Verdict:
        """Worst verdict of its groups; ``unknown`` where judging failed."""
        return "unknown" if self.failed else worst_of_groups(group.verdict for group in self.groups)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings of all groups."""
        return tuple(finding for group in self.groups for finding in group.findings)

    @property
    def drifted(self) -> bool:
        """Whether the registry now decides otherwise for any group."""
        return any(group.drifted for group in self.groups)

    @property
    def state(self) -> State:
        """State of the replica while it is not stale."""
        return state_of(self.verdict, drifted=self.drifted)

    @property
    def text(self) -> str:
        """Groups as JSON."""
        return _GROUPS.dump_json(self.groups).decode()


def worst_of_groups(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst verdict of a report's groups.

    It is ``ok`` without groups: a pipeline's stage may have no MoE layers.
    """
    return worst(["ok", *verdicts])


def read_groups(text: str) -> tuple[GroupJudgement, ...]:
    """Parse the JSON of ``Judgement.text``."""
    return _GROUPS.validate_json(text)


def judge_name(registry: Registry) -> str:
    """Return a registry's name in stored judgements: ``book digest+tables digest``."""
    tables = registry.tables.digest if registry.tables is not None else ""
    return f"{registry.digest}+{tables}"


def judge(
    report: ReplicaReport, registry: Registry, baseline: Baseline | None = None, seconds: float = inf
) -> Judgement:
    """Check every group of a report and resolve its query.

    Args:
        report: of a replica.
        registry: checks and resolves.
        baseline: what drift is measured from; None for a new report.
        seconds: of computing that it may take.

    Raises:
        QueryError: it takes longer.
    """
    started, decisions, reports = thread_time(), [], []
    for number, group in enumerate(report.groups):
        if thread_time() - started > seconds:
            text = f"the first {number} of {len(report.groups)} take {seconds:g} s to check; valid: fewer that differ"
            raise QueryError([FieldProblem("groups", text)])
        decisions.append(_resolve(group.observation.query, registry))
        reports.append(registry.check(group.observation))
    if baseline is None or len(baseline) != len(decisions):
        baseline = tuple(map(_first_baseline, report.groups, decisions))
    groups = [
        _judge_group(group, decision, baseline_digest, checked, registry)
        for group, decision, baseline_digest, checked in zip(report.groups, decisions, baseline, reports, strict=True)
    ]
    return Judgement(judge_name(registry), tuple(groups), baseline)


def has_drifted(baseline_digest: str | None, decision: Decision | None) -> bool:
    """Whether the decision differs from the baseline; False where that is unknown."""
    return baseline_digest is not None and (decision is None or decision.decision_digest != baseline_digest)


def _resolve(query: Query, registry: Registry) -> Decision | None:
    try:
        return registry.resolve(query, kernels=False)
    except PreshuffleError:
        return None


def _first_baseline(group: Group, decision: Decision | None) -> str | None:
    if group.decision_digest is not None:
        return group.decision_digest
    return decision.decision_digest if decision is not None else None


def _judge_group(
    group: Group, decision: Decision | None, baseline_digest: str | None, report: Report, registry: Registry
) -> GroupJudgement:
    query, applied = group.observation.query, group.observation.applied
    tensor = decision.tensors.get("w13_weight") if decision else None
    return GroupJudgement(
        layers=group.layers,
        model=query.model,
        arch=registry.book.arch_names.gfx(query.arch),
        engine=str(query.engine) if query.engine else None,
        verdict=report.verdict,
        findings=report.findings,
        recipe=decision.recipe if decision else None,
        decision_digest=decision.decision_digest if decision else None,
        drifted=has_drifted(baseline_digest, decision),
        w13_weight=compare(registry.book, tensor, applied.tensors.get("w13_weight")),
    )
