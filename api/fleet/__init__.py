"""Deployments, replicas and judgements of their reports; no web, no store."""

from preshuffle.api.fleet.advice import codes_of, fixes_of
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
    canonical_json,
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
from preshuffle.api.fleet.known_env import clean_report, without_unknown_env
from preshuffle.api.fleet.marks import (
    Acknowledgement,
    AcknowledgeRequest,
    Description,
    Labels,
    Line,
    Link,
    Marks,
    Silence,
    SilenceRequest,
)
from preshuffle.api.fleet.replica_check import GroupCheck, ReplicaCheck, check_replica, parse_observed
from preshuffle.api.fleet.replica_facts import ReplicaFacts, facts_of, headline, shortened, silence_cause
from preshuffle.api.fleet.report_equivalence import ReportEquivalence
from preshuffle.api.fleet.schemas import INPUT_FORMS, InputForm, input_schema
from preshuffle.api.fleet.states import STATES, State, state_of, state_rank, worst_state

__all__ = [
    "INPUT_FORMS",
    "NAME_PATTERN",
    "STATES",
    "AcknowledgeRequest",
    "Acknowledgement",
    "Baseline",
    "Beat",
    "Deployment",
    "DeploymentName",
    "Description",
    "Group",
    "GroupCheck",
    "GroupJudgement",
    "InputForm",
    "Judgement",
    "Labels",
    "LayoutComparison",
    "Line",
    "Link",
    "Marks",
    "Receipt",
    "Replica",
    "ReplicaCheck",
    "ReplicaFacts",
    "ReplicaNumber",
    "ReplicaReport",
    "ReportEquivalence",
    "Silence",
    "SilenceRequest",
    "State",
    "canonical_json",
    "check_replica",
    "clean_report",
    "codes_of",
    "compare_all",
    "facts_of",
    "fixes_of",
    "has_drifted",
    "headline",
    "input_schema",
    "judge",
    "judge_name",
    "known_layouts",
    "parse_observed",
    "read_groups",
    "shortened",
    "silence_cause",
    "state_of",
    "state_rank",
    "without_unknown_env",
    "worst_state",
]
