"""Stages of a pipeline: processes of one replica that hold different layers.

Each stage reports its own layers under a number of its own, so that reports complement each other, and each has its own
heartbeats. Stage ``s`` of replica ``r`` has the number ``r + 1024 * s``: stage 0 has that of its replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from preshuffle.registry.base.errors import FieldProblem, PlacedError, QueryError
from preshuffle.registry.base.frozen import Frozen, number
from preshuffle.registry.base.ranges import ranges_text

STAGE_STEP: Final = 1024
"""Distance between the numbers of a replica's stages; a replica with stages has a number below it."""
_MAX_STAGES: Final = 64


class PipelineStage(Frozen):
    """Place of a process in its replica's pipeline.

    Attributes:
        stage: counted from 0.
        stages: how many there are.
    """

    stage: Annotated[int, Field(ge=0, lt=_MAX_STAGES), BeforeValidator(number)]
    stages: Annotated[int, Field(ge=1, le=_MAX_STAGES), BeforeValidator(number)]

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.stage >= self.stages:
            raise PlacedError(("stage",), f"{self.stage} is none of {self.stages}; valid: 0 to {self.stages - 1}")
        return self

    @property
    def is_alone(self) -> bool:
        """Whether the replica has no other stages."""
        return self.stages == 1


@dataclass(frozen=True, slots=True)
class ReportedStage:
    """A replica's number as it reported last, and as what.

    Attributes:
        number: the replica's, or that of its stage.
        pipeline: None without stages.
        replaced_at: when its report last changed.
        silent: whether it has been silent for longer than its ``ttl_s``.
    """

    number: int
    pipeline: PipelineStage | None
    replaced_at: datetime
    silent: bool


class IncompleteReplica(Frozen):
    """Replica of whose pipeline some stages have not reported."""

    replica: int
    stages: int = Field(description="of the pipeline, in all")
    missing: tuple[int, ...] = Field(description="stages that have not reported, counted from 0")

    @property
    def share(self) -> str:
        """How many stages have reported, as ``2 of 4 stages``."""
        return f"{self.stages - len(self.missing)} of {self.stages} stages"

    @property
    def text(self) -> str:
        """What is missing, as a clause."""
        named = f"stage{'' if len(self.missing) == 1 else 's'} {ranges_text(self.missing, '-')}"
        verb = "has" if len(self.missing) == 1 else "have"
        return f"{named} of {self.stages} of replica {self.replica} {verb} not reported"


def incomplete_replicas(reported: Iterable[ReportedStage]) -> tuple[IncompleteReplica, ...]:
    """Return replicas of whose pipeline some stages have not reported.

    The newest report says how many stages there are: others are of an earlier start. A replica that is silent as a
    whole is stale, not incomplete.
    """
    members: dict[int, list[ReportedStage]] = {}
    for one in reported:
        members.setdefault(replica_of(one.number, one.pipeline), []).append(one)
    found = (_missing(number, stages) for number, stages in sorted(members.items()))
    return tuple(one for one in found if one is not None)


def _missing(number: int, reported: Sequence[ReportedStage]) -> IncompleteReplica | None:
    newest = max(reported, key=lambda one: one.replaced_at).pipeline
    if newest is None or all(one.silent for one in reported):
        return None
    present = {one.pipeline.stage for one in reported if one.pipeline and one.pipeline.stages == newest.stages}
    missing = tuple(stage for stage in range(newest.stages) if stage not in present)
    return IncompleteReplica(replica=number, stages=newest.stages, missing=missing) if missing else None


def stage_text(value: Any) -> Any:
    """Read ``1/4``: stage 1 of 4."""
    if not isinstance(value, str):
        return value
    stage, slash, stages = value.partition("/")
    if not (slash and stage.strip().isdecimal() and stages.strip().isdecimal()):
        raise ValueError(f"{value!r} is no stage; valid: STAGE/STAGES, counted from 0, as in 1/4")
    return {"stage": int(stage), "stages": int(stages)}


def report_number(replica: int, pipeline: PipelineStage | None) -> int:
    """Return the number under which a stage of a replica reports.

    Raises:
        QueryError: the replica's number leaves no room for stages.

    Example:
        >>> report_number(3, PipelineStage(stage=1, stages=2))
        1027
    """
    if pipeline is None or pipeline.is_alone:
        return replica
    if not 0 <= replica < STAGE_STEP:
        text = f"{replica} is no replica with {pipeline.stages} stages; valid: 0 to {STAGE_STEP - 1}"
        raise QueryError([FieldProblem("replica", text)])
    return replica + STAGE_STEP * pipeline.stage


def replica_of(reported: int, pipeline: PipelineStage | None) -> int:
    """Return the replica whose stage reports under a number."""
    return reported if pipeline is None or pipeline.is_alone else reported % STAGE_STEP


def number_problem(reported: int, pipeline: PipelineStage | None) -> str | None:
    """Return why a stage cannot report under a number, if so."""
    if pipeline is None or pipeline.is_alone or reported // STAGE_STEP == pipeline.stage:
        return None
    valid = report_number(reported % STAGE_STEP, pipeline)
    return f"stage {pipeline.stage} does not report as {reported}; valid: {valid} (replica + {STAGE_STEP} * stage)"


def replica_title(reported: int, pipeline: PipelineStage | None) -> str:
    """Return what people call a replica or its stage.

    Example:
        >>> replica_title(1027, PipelineStage(stage=1, stages=2))
        '3 (stage 1 of 2)'
    """
    if pipeline is None or pipeline.is_alone:
        return str(reported)
    return f"{replica_of(reported, pipeline)} (stage {pipeline.stage} of {pipeline.stages})"


def replica_titles(numbers: Iterable[int], pipelines: Mapping[int, PipelineStage | None]) -> str:
    """Return what people call several replicas or their stages.

    Consecutive ones are a range.

    Example:
        >>> first, second = (PipelineStage(stage=number, stages=2) for number in (0, 1))
        >>> replica_titles([0, 1, 3, 1027, 1028], {3: first, 1027: second, 1028: second})
        '0–1, 3 (stages 0–1 of 2), 4 (stage 1 of 2)'
    """
    reported: dict[tuple[int, int], list[int]] = {}
    for one in numbers:
        pipeline = pipelines.get(one)
        if pipeline is None or pipeline.is_alone:
            reported[0, one] = []
        else:
            reported.setdefault((pipeline.stages, replica_of(one, pipeline)), []).append(pipeline.stage)
    alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for (total, replica), stages in sorted(reported.items()):
        alike.setdefault((total, tuple(stages)), []).append(replica)
    return ", ".join(ranges_text(replicas, "–") + _stages_of(*stages) for stages, replicas in alike.items())


def _stages_of(total: int, stages: Sequence[int]) -> str:
    plural = "" if len(stages) == 1 else "s"
    return f" (stage{plural} {ranges_text(stages, '–')} of {total})" if total else ""
