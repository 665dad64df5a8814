"""Response models of deployments: reports, verdicts and current decisions.

There are two verdicts. A list shows the *stored* one: it was judged when the replica reported, or after the registry
last changed. One deployment, its page and its health show the *current* one: the registry that answers now judges the
stored reports. After a reload they may differ until the re-check has stored new verdicts; ``rechecking`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import Field, field_serializer

from preshuffle.api.answers.answers import Answers
from preshuffle.api.fleet import (
    Acknowledgement,
    Deployment,
    Group,
    GroupJudgement,
    IncompleteReplica,
    LayoutComparison,
    PipelineStage,
    Replica,
    Silence,
    State,
    compare_all,
    has_drifted,
    judge_name,
    replica_of,
    replica_title,
    replica_titles,
    shown_with_missing,
    state_of,
    worst_of_groups,
    worst_state,
)
from preshuffle.api.store import JudgedDeployment
from preshuffle.api.web import Problem
from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.base.words import Role
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.finding import Finding
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Verdict, worst

_STORED: Final = "this verdict was stored when the deployment last reported or was last re-checked"
_CURRENT: Final = "this verdict is from the registry in use"
_RECHECKING: Final = "being checked again: the stored verdict is from another registry than the one in use"
_WORST_GROUP: Final = "the worst of its groups'"
_WORST_REPLICA: Final = "the worst of its replicas'"
_INCOMPLETE: Final = "replicas of whose pipeline some stages have not reported"
_SINCE: Final = "when its state began"
_SILENCE: Final = "null where none lasts"
_ACKNOWLEDGED: Final = "null where nobody has since its state began"
_STATE: Final = "the verdict, unless it is stale (silent for longer than ttl_s) or drifted and that is worse"


class GroupView(Frozen):
    """Group of layers: its observation and the current decision."""

    layers: str
    observation: Observation
    decision: Decision | None = None
    problem: Problem | None = None
    verdict: Verdict
    drifted: bool = Field(description="the registry decides otherwise now than when this was loaded")
    findings: tuple[Finding, ...] = Field(description="of the check: bytes, call and kernels against each other")
    layouts: dict[Role, LayoutComparison]

    @field_serializer("observation")
    def _as_reported(self, observation: Observation) -> dict[str, Any]:
        return observation.model_dump(mode="json", exclude_unset=True)


class ReplicaView(Frozen):
    """One replica."""

    replica: int = Field(description="its number, or that of its stage")
    pipeline: PipelineStage | None = Field(description="which stage of its pipeline, where there are several")
    node: str | None
    aiter_build: str | None
    registry_digest: str | None
    ttl_s: int | None
    created_at: datetime
    replaced_at: datetime
    seen_at: datetime
    state_since: datetime = Field(description=_SINCE)
    env_left_out: int = Field(description="reported environment variables that the book does not know: not stored")
    verdict: Verdict = Field(description=_WORST_GROUP)
    state: State = Field(description=_STATE)
    groups: tuple[GroupView, ...]

    @property
    def title(self) -> str:
        """What people call it: its number, with its stage."""
        return replica_title(self.replica, self.pipeline)


class DeploymentView(Frozen):
    """A deployment with all its replicas."""

    name: str
    revision: int = Field(description="the same as the ETag")
    created_at: datetime
    replaced_at: datetime
    seen_at: datetime
    verdict: Verdict = Field(description=_WORST_REPLICA)
    state: State = Field(description=_WORST_REPLICA)
    verdict_source: Literal["current"] = Field(default="current", description=_CURRENT)
    rechecking: bool = Field(default=False, description=_RECHECKING)
    state_since: datetime = Field(description=_SINCE)
    labels: FrozenDict[str, str]
    owner: str | None
    link: str | None
    silence: Silence | None = Field(description=_SILENCE)
    acknowledgement: Acknowledgement | None = Field(description=_ACKNOWLEDGED)
    incomplete: tuple[IncompleteReplica, ...] = Field(default=(), description=_INCOMPLETE)
    replicas: tuple[ReplicaView, ...]

    def titles(self, numbers: Sequence[int]) -> str:
        """Return what people call some of its replicas or stages."""
        return replica_titles(numbers, {one.replica: one.pipeline for one in self.replicas})

    @property
    def shown(self) -> str:
        """Its state, or ``incomplete``."""
        return shown_with_missing(self.state, bool(self.incomplete))


class GroupSummary(Frozen):
    """Layers that several replicas treat identically."""

    layers: str
    replicas: tuple[int, ...]
    model: str
    arch: str
    engine: str | None
    verdict: Verdict
    findings: tuple[Finding, ...]
    drifted: bool
    recipe: str | None = Field(description="null where no recipe answers the query")
    w13_weight: LayoutComparison


class DeploymentSummary(Frozen):
    """A deployment in a list."""

    name: str
    revision: int
    created_at: datetime
    replaced_at: datetime
    seen_at: datetime
    verdict: Verdict = Field(description=f"{_WORST_REPLICA}, when they were last judged")
    state: State = Field(description=_WORST_REPLICA)
    verdict_source: Literal["stored"] = Field(default="stored", description=_STORED)
    rechecking: bool = Field(default=False, description=_RECHECKING)
    state_since: datetime = Field(description=_SINCE)
    cause: str | None = Field(description="why, in words; null where nothing is wrong")
    codes: tuple[str, ...] = Field(description="of all findings, those of the worst replica first")
    nodes: tuple[str, ...]
    models: tuple[str, ...]
    archs: tuple[str, ...]
    engines: tuple[str, ...] = Field(description="name@version, or the name alone")
    parallel: tuple[str, ...] = Field(description="tensor and expert parallel sizes, as TP8 or TP8/EP8")
    labels: FrozenDict[str, str]
    owner: str | None
    link: str | None
    silence: Silence | None = Field(description=_SILENCE)
    acknowledgement: Acknowledgement | None = Field(description=_ACKNOWLEDGED)
    incomplete: tuple[IncompleteReplica, ...] = Field(
        default=(), description=f"{_INCOMPLETE}; verdict and state are those of the others"
    )
    replicas: tuple[int, ...] = Field(description="their numbers, or those of their stages")
    pipelines: FrozenDict[int, PipelineStage] = Field(description="which stage a number of replicas stands for")
    groups: tuple[GroupSummary, ...]

    def titles(self, numbers: Sequence[int]) -> str:
        """Return what people call some of its replicas or stages."""
        return replica_titles(numbers, self.pipelines)

    @property
    def shown(self) -> str:
        """Its state, or ``incomplete``."""
        return shown_with_missing(self.state, bool(self.incomplete))

    @property
    def size(self) -> int:
        """How many replicas it has, however many stages they have."""
        return len({replica_of(number, self.pipelines.get(number)) for number in self.replicas})


class DeploymentHealth(Frozen):
    """Health of a deployment without known errors."""

    verdict: Literal["ok", "degraded", "unknown"]
    state: State
    verdict_source: Literal["current"] = Field(default="current", description=_CURRENT)
    rechecking: bool = Field(default=False, description=_RECHECKING)


class DeploymentGroup(Frozen):
    """Deployments that share a value."""

    value: str = Field(description="empty: those without a value")
    deployments: int
    states: FrozenDict[State, int] = Field(description="how many are in each state, without the silenced ones")
    silenced: int


class DeploymentList(Frozen):
    """A page of the list."""

    deployments: tuple[DeploymentSummary, ...]
    next: str | None = Field(description="the cursor of the next page; null on the last one")
    groups: tuple[DeploymentGroup, ...] | None = Field(
        default=None, description="of all that match, the worst first, 500 at most; only where group_by asks for them"
    )


def view(deployment: Deployment, answers: Answers) -> DeploymentView:
    """Return the view of a deployment, judged by the current registry."""
    now, judge = datetime.now(UTC), judge_name(answers.registry)
    replicas = tuple(_replica(deployment.name, replica, answers, now) for replica in deployment.replicas)
    return DeploymentView(
        name=deployment.name,
        revision=deployment.revision,
        created_at=deployment.created_at,
        replaced_at=deployment.replaced_at,
        seen_at=deployment.seen_at,
        verdict=worst(replica.verdict for replica in replicas),
        state=worst_state(replica.state for replica in replicas),
        rechecking=any(replica.judged_by != judge for replica in deployment.replicas),
        state_since=deployment.since,
        **dict(deployment.marks),
        incomplete=deployment.incomplete(now),
        replicas=replicas,
    )


def group_view(name: str, group: Group, answers: Answers, baseline: str | None = None) -> GroupView:
    """Return the view of a group.

    Drift is measured from the decision digest ``baseline``.
    """
    answer = answers.get(group.observation.query)
    report = answers.check(group.observation)
    decided = answer.decision.tensors if answer.decision else {}
    return GroupView(
        layers=group.layers,
        observation=group.observation,
        decision=answer.decision,
        problem=answer.problem.problem(f"{answers.root}/v1/deployments/{name}") if answer.problem else None,
        verdict=report.verdict,
        drifted=has_drifted(baseline, answer.decision),
        findings=report.findings,
        layouts=compare_all(answers.registry.book, decided, group.observation.applied.tensors),
    )


def summary(deployment: JudgedDeployment, judge: str) -> DeploymentSummary:
    """Return a deployment's entry in a list.

    Replicas with identical judgements share a line.

    ``judge`` names the current registry, as ``judge_name`` writes it.
    """
    by_judgement: dict[GroupJudgement, list[int]] = {}
    for replica, group in deployment.groups:
        by_judgement.setdefault(group, []).append(replica)
    return DeploymentSummary(
        name=deployment.name,
        revision=deployment.revision,
        created_at=deployment.created_at,
        replaced_at=deployment.replaced_at,
        seen_at=deployment.seen_at,
        verdict=deployment.verdict,
        state=deployment.state,
        rechecking=deployment.judged_by != {judge},
        state_since=deployment.since,
        cause=deployment.cause,
        codes=deployment.codes,
        nodes=deployment.nodes,
        models=deployment.models,
        archs=deployment.archs,
        engines=deployment.engines,
        parallel=deployment.sizes,
        **dict(deployment.marks),
        incomplete=deployment.incomplete,
        replicas=deployment.replicas,
        pipelines=FrozenDict(deployment.pipelines),
        groups=tuple(_summary_line(group, numbers) for group, numbers in by_judgement.items()),
    )


def _replica(name: str, replica: Replica, answers: Answers, now: datetime) -> ReplicaView:
    report = replica.report
    baseline = replica.baseline or (None,) * len(report.groups)
    groups = tuple(
        group_view(name, group, answers, before) for group, before in zip(report.groups, baseline, strict=True)
    )
    verdict = worst_of_groups(group.verdict for group in groups)
    return ReplicaView(
        replica=replica.replica,
        pipeline=report.pipeline,
        node=report.node,
        aiter_build=report.aiter_build,
        registry_digest=report.registry_digest,
        ttl_s=report.ttl_s,
        created_at=replica.created_at,
        replaced_at=replica.replaced_at,
        seen_at=replica.seen_at,
        state_since=replica.since,
        env_left_out=replica.env_left_out,
        verdict=verdict,
        state=state_of(verdict, drifted=any(group.drifted for group in groups), silent=replica.silent(now)),
        groups=groups,
    )


def _summary_line(group: GroupJudgement, replicas: Sequence[int]) -> GroupSummary:
    return GroupSummary(
        layers=group.layers,
        replicas=tuple(replicas),
        model=group.model,
        arch=group.arch,
        engine=group.engine,
        verdict=group.verdict,
        drifted=group.drifted,
        findings=group.findings,
        recipe=group.recipe,
        w13_weight=group.w13_weight,
    )
