"""Stages of a pipeline: processes of one replica that hold different layers.

Each stage reports its own layers under a number of its own, so that reports complement each other, and each has its own
heartbeats. Stage ``s`` of replica ``r`` has the number ``r + 1024 * s``: stage 0 has that of its replica.
"""

from __future__ import annotations

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


class IncompleteReplica(Frozen):
    """Replica of whose pipeline some stages have not reported."""

    replica: int
    stages: int = Field(description="of the pipeline, in all")
    missing: tuple[int, ...] = Field(description="stages that have not reported, counted from 0")

    @property
    def text(self) -> str:
        """What is missing, as a clause."""
        named = f"stage{'' if len(self.missing) == 1 else 's'} {ranges_text(self.missing, '-')}"
        verb = "has" if len(self.missing) == 1 else "have"
        return f"{named} of {self.stages} of replica {self.replica} {verb} not reported"


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
