"""Check of a replica's report: one report per group of layers."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import thread_time
from typing import Any

from pydantic import Field

from preshuffle.api.fleet.deployments import ReplicaReport
from preshuffle.api.fleet.judgement import worst_of_groups
from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.values.observation import Observation
from preshuffle.registry.values.report import Report, Verdict


class GroupCheck(Frozen):
    """Report on one group of layers."""

    layers: str
    report: Report


class ReplicaCheck(Frozen):
    """Reports on all groups of a replica, and the worst verdict."""

    verdict: Verdict
    groups: tuple[GroupCheck, ...] = Field(description="in the order of the report's groups")

    @classmethod
    def of(cls, groups: tuple[GroupCheck, ...]) -> ReplicaCheck:
        """Return the groups with their worst verdict."""
        return cls(verdict=worst_of_groups(group.report.verdict for group in groups), groups=groups)


def parse_observed(value: Any) -> Observation | ReplicaReport:
    """Parse an observation, or a replica's report where it has ``groups``.

    Raises:
        QueryError: names each wrong field, what was found and what is valid.
    """
    is_report = isinstance(value, dict) and "groups" in value
    return ReplicaReport.parse(value) if is_report else Observation.parse(value)


def check_replica(report: ReplicaReport, check: Callable[[Observation], Report], seconds: float = inf) -> ReplicaCheck:
    """Check every group of a replica's report.

    Args:
        report: of a replica.
        check: checks one observation.
        seconds: of computing that it may take.

    Raises:
        QueryError: it takes longer.
    """
    started, groups = thread_time(), []
    for number, group in enumerate(report.groups):
        if thread_time() - started > seconds:
            text = f"the first {number} of {len(report.groups)} take {seconds:g} s to check; valid: fewer that differ"
            raise QueryError([FieldProblem("groups", text)])
        groups.append(GroupCheck(layers=group.layers, report=check(group.observation)))
    return ReplicaCheck.of(tuple(groups))
