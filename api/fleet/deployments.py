"""Reports of replicas, and deployments as the store holds them.

A report has groups of layers, with one observation per group.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, field_serializer, model_validator

from preshuffle.api.fleet.layers import Layers, first_overlap, parse_layers
from preshuffle.api.fleet.marks import Labels, Line, Link, Marks
from preshuffle.api.fleet.stages import IncompleteReplica, PipelineStage, ReportedStage, incomplete_replicas
from preshuffle.api.fleet.states import State
from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.limits import MAX_GROUPS, at_most
from preshuffle.registry.values.finding import FindingCode
from preshuffle.registry.values.input import Input
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Verdict

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
DeploymentName = Annotated[str, Field(pattern=NAME_PATTERN, examples=["gpt-oss-prod"])]
ReplicaNumber = Annotated[int, Field(ge=0, le=65535)]
Label = Annotated[str, Field(min_length=1, max_length=256)]
Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and without spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Group(Frozen):
    """Layers that were laid out in the same way, with one observation.

    Attributes:
        decision_digest: of the decision that was followed; if left out, the one that the service made when the report
            arrived.
    """

    layers: Layers
    observation: Observation
    decision_digest: Digest | None = None

    @field_serializer("observation")
    def _set_fields(self, observation: Observation) -> dict[str, Any]:
        """Leave unset fields out: they are unknown."""
        return observation.model_dump(mode="json", exclude_unset=True)


class ReplicaReport(Input):
    """Report of one replica: the body of ``PUT /v1/deployments/{name}``.

    Attributes:
        groups: no layer may be in two of them. Only a stage of a pipeline may have none.
        pipeline: which stage of its replica's pipeline reports, where there are several.
        node: the machine that it runs on.
        aiter_build: AITER's version there, in full.
        registry_digest: of the registry that the replica itself used.
        ttl_s: seconds without a report or heartbeat after which the replica counts as stale.
        labels: of the deployment, all of them; left out, they stay as they are.
        owner: who looks after the deployment.
        link: to the deployment's dashboard or runbook, ``http`` or ``https``.
    """

    groups: Annotated[tuple[Group, ...], Field(max_length=MAX_GROUPS), at_most(MAX_GROUPS)]
    pipeline: PipelineStage | None = None
    node: Label | None = None
    aiter_build: Label | None = None
    registry_digest: Digest | None = None
    ttl_s: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    labels: Labels | None = None
    owner: Line | None = None
    link: Link | None = None

    @model_validator(mode="after")
    def _layers_once(self) -> ReplicaReport:
        if not self.groups and (self.pipeline is None or self.pipeline.is_alone):
            raise PlacedError(
                ("groups",), "no groups; valid: at least one, but of a pipeline's stage without MoE layers"
            )
        overlap = first_overlap([parse_layers(group.layers) for group in self.groups])
        if overlap:
            layer, first, second = overlap
            raise ValueError(f"layer {layer} is in groups.{first} and in groups.{second}; valid: in one of them")
        return self

    def canonical(self) -> str:
        """Return canonical JSON: equal reports give equal text."""
        return canonical_json(self.model_dump(mode="json", exclude_unset=True))


class Replica(Frozen):
    """One replica of a deployment, as stored."""

    replica: ReplicaNumber
    report: ReplicaReport
    created_at: datetime
    replaced_at: datetime = Field(description="when its report last changed")
    seen_at: datetime = Field(description="when it last reported, changed or not, or sent a heartbeat")
    since: datetime = Field(description="when its state began")
    env_left_out: int = Field(description="environment variables that the book does not know, and that are not stored")
    judged_by: str = Field(description="the registry of the stored verdict, as ``judge_name`` writes it")
    baseline: tuple[str | None, ...] | None = Field(
        description="decision digests that drift is measured from, by group"
    )

    def silent(self, now: datetime) -> bool:
        """Whether it has been silent for longer than its ``ttl_s``."""
        ttl = self.report.ttl_s
        return ttl is not None and (now - self.seen_at).total_seconds() > ttl


class Deployment(Frozen):
    """A deployment with its replicas, as stored."""

    name: str
    revision: int = Field(description="changes with every change of the deployment and is never used again")
    created_at: datetime
    replaced_at: datetime
    state: State = Field(description="as stored")
    since: datetime = Field(description="when its state began")
    marks: Marks
    replicas: tuple[Replica, ...]

    @property
    def seen_at(self) -> datetime:
        """Latest report or heartbeat of any of its replicas."""
        return max(replica.seen_at for replica in self.replicas)

    def incomplete(self, now: datetime) -> tuple[IncompleteReplica, ...]:
        """Return replicas of whose pipeline some stages have not reported."""
        return incomplete_replicas(
            ReportedStage(one.replica, one.report.pipeline, one.replaced_at, one.silent(now)) for one in self.replicas
        )


class Beat(Frozen):
    """Acknowledgement of a heartbeat, sent once it is on disk."""

    name: str
    replica: ReplicaNumber
    seen_at: datetime


class Receipt(Frozen):
    """Acknowledgement of a report, and what was found in it.

    It is sent once the report is on disk.
    """

    name: str
    replica: ReplicaNumber
    revision: int
    changed: bool = Field(description="false where the same report was stored before")
    created_at: datetime
    replaced_at: datetime
    verdict: Verdict = Field(description="the worst of this report's groups")
    codes: tuple[FindingCode, ...] = Field(description="codes of all that was found, errors first, each once")
    fixes: tuple[str, ...] = Field(description="what to do about it, errors first, each once")
    env_left_out: int = Field(default=0, description="reported variables that the book does not know: not stored")
