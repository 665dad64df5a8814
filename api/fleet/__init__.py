"""Deployments, replicas and judgements of their reports; no web, no store."""

from preshuffle.api.fleet.comparison import LayoutComparison, compare_all, known_layouts
from preshuffle.api.fleet.deployments import (
    NAME_PATTERN,
    Beat,
    Deployment,
    DeploymentName,
    Group,
    Receipt,
    Replica,
    ReplicaNumber,
    ReplicaReport,
)
from preshuffle.api.fleet.judgement import (
    Baseline,
    GroupJudgement,
    Judgement,
    has_drifted,
    judge,
    judge_name,
    read_groups,
)
from preshuffle.api.fleet.report_equivalence import ReportEquivalence
from preshuffle.api.fleet.states import STATES, State, state_of, worst_state

__all__ = [
    "NAME_PATTERN",
    "STATES",
    "Baseline",
    "Beat",
    "Deployment",
    "DeploymentName",
    "Group",
    "GroupJudgement",
    "Judgement",
    "LayoutComparison",
    "Receipt",
    "Replica",
    "ReplicaNumber",
    "ReplicaReport",
    "ReportEquivalence",
    "State",
    "compare_all",
    "has_drifted",
    "judge",
    "judge_name",
    "known_layouts",
    "read_groups",
    "state_of",
    "worst_state",
]
