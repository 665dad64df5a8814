"""Deployments as they are shown: what was told, whether it is right, and what the registry decides for it now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field, field_serializer

from preshuffle.api.answers import Answers
from preshuffle.api.comparison import LayoutComparison, compare, compare_all
from preshuffle.api.deployments import Deployment, Group, Replica
from preshuffle.api.problem import Problem
from preshuffle.registry.decision import Decision, Finding
from preshuffle.registry.observation import Observation
from preshuffle.registry.query import Frozen
from preshuffle.registry.report import Report, Verdict, worst
from preshuffle.registry.words import Role

_WORST_GROUP: Final = "the worst of its groups'"
_WORST_REPLICA: Final = "the worst of its replicas'"


class GroupView(Frozen):
    """A group of layers: the observation, and the decision or the problem that answers its query now."""

    layers: str
    observation: Observation
    decision: Decision | None = None
    problem: Problem | None = None
    verdict: Verdict
    findings: tuple[Finding, ...] = Field(description="of the check: bytes, call and kernels against each other")
    layouts: dict[Role, LayoutComparison]

    @field_serializer("observation")
    def _as_told(self, observation: Observation) -> dict[str, Any]:
        return observation.model_dump(mode="json", exclude_unset=True)


class ReplicaView(Frozen):
    """One replica."""

    replica: int
    node: str | None
    aiter_build: str | None
    registry_digest: str | None
    ttl_s: int | None
    created_at: datetime
    replaced_at: datetime
    seen_at: datetime
    verdict: Verdict = Field(description=_WORST_GROUP)
    groups: tuple[GroupView, ...]


class DeploymentView(Frozen):
    """A deployment with all its replicas."""

    name: str
    revision: int = Field(description="the same as the ETag")
    created_at: datetime
    replaced_at: datetime
    seen_at: datetime
    verdict: Verdict = Field(description=_WORST_REPLICA)
    replicas: tuple[ReplicaView, ...]


class GroupSummary(Frozen):
    """Layers that several replicas treat alike."""

    layers: str
    replicas: tuple[int, ...]
    model: str
    arch: str
    engine: str | None
    verdict: Verdict
    findings: tuple[Finding, ...]
    recipe: str | None = Field(description="null where no recipe answers the query")
    w13_weight: LayoutComparison


class DeploymentSummary(Frozen):
    """A deployment in a list."""

    name: str
    revision: int
    created_at: datetime
    replaced_at: datetime
    seen_at: datetime
    verdict: Verdict = Field(description=_WORST_REPLICA)
    replicas: tuple[int, ...]
    groups: tuple[GroupSummary, ...]


class DeploymentHealth(Frozen):
    """Nothing is known to be wrong with a deployment."""

    verdict: Literal["ok", "degraded", "unknown"]


class DeploymentList(Frozen):
    """A page of the list, by name."""

    deployments: tuple[DeploymentSummary, ...]
    next: str | None = Field(description="the cursor of the next page; null on the last one")


def view(deployment: Deployment, answers: Answers) -> DeploymentView:
    """Show a deployment."""
    replicas = tuple(_replica(deployment.name, replica, answers) for replica in deployment.replicas)
    return DeploymentView(
        name=deployment.name,
        revision=deployment.revision,
        created_at=deployment.created_at,
        replaced_at=deployment.replaced_at,
        seen_at=deployment.seen_at,
        verdict=worst(replica.verdict for replica in replicas),
        replicas=replicas,
    )


def group_view(name: str, group: Group, answers: Answers) -> GroupView:
    """Show a group, with the registry's answer to its query."""
    answer = answers.get(group.observation.query)
    report = answers.check(group.observation)
    decided = answer.decision.tensors if answer.decision else {}
    return GroupView(
        layers=group.layers,
        observation=group.observation,
        decision=answer.decision,
        problem=answer.problem.problem(f"/v1/deployments/{name}") if answer.problem else None,
        verdict=report.verdict,
        findings=report.findings,
        layouts=compare_all(answers.registry.book, decided, group.observation.applied.tensors),
    )


def summary(deployment: Deployment, answers: Answers) -> DeploymentSummary:
    """Show a deployment in a list; replicas that treat the same layers alike stand in one line."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for replica in deployment.replicas:
        for group in replica.report.groups:
            alike.setdefault(_line(group, answers), []).append(replica.replica)
    groups = tuple(_summary_line(line, numbers) for line, numbers in alike.items())
    return DeploymentSummary(
        name=deployment.name,
        revision=deployment.revision,
        created_at=deployment.created_at,
        replaced_at=deployment.replaced_at,
        seen_at=deployment.seen_at,
        verdict=worst(group.verdict for group in groups),
        replicas=tuple(replica.replica for replica in deployment.replicas),
        groups=groups,
    )


def reports(deployment: Deployment, answers: Answers) -> list[Report]:
    """Check every group of every replica."""
    groups = (group for replica in deployment.replicas for group in replica.report.groups)
    return [answers.check(group.observation) for group in groups]


def _replica(name: str, replica: Replica, answers: Answers) -> ReplicaView:
    report = replica.report
    groups = tuple(group_view(name, group, answers) for group in report.groups)
    return ReplicaView(
        replica=replica.replica,
        node=report.node,
        aiter_build=report.aiter_build,
        registry_digest=report.registry_digest,
        ttl_s=report.ttl_s,
        created_at=replica.created_at,
        replaced_at=replica.replaced_at,
        seen_at=replica.seen_at,
        verdict=worst(group.verdict for group in groups),
        groups=groups,
    )


def _line(group: Group, answers: Answers) -> tuple[Any, ...]:
    query, applied = group.observation.query, group.observation.applied
    decision = answers.get(query).decision
    tensor = decision.tensors.get("w13_weight") if decision else None
    w13 = compare(answers.registry.book, tensor, applied.tensors.get("w13_weight"))
    engine = str(query.engine) if query.engine else None
    report = answers.check(group.observation)
    return group.layers, query.model, query.arch, engine, decision.recipe if decision else None, w13, report


def _summary_line(line: tuple[Any, ...], replicas: Sequence[int]) -> GroupSummary:
    layers, model, arch, engine, recipe, w13, report = line
    return GroupSummary(
        layers=layers,
        replicas=tuple(replicas),
        model=model,
        arch=arch,
        engine=engine,
        verdict=report.verdict,
        findings=report.findings,
        recipe=recipe,
        w13_weight=w13,
    )
