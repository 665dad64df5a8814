"""Rollout plans: what another book, tables or AITER would change."""

from preshuffle.api.rollout.book_changes import BookChanges, compare_entries
from preshuffle.api.rollout.disconnect import while_connected
from preshuffle.api.rollout.plan_values import Candidate, Plan, PlanItem
from preshuffle.api.rollout.planner import Planner

__all__ = [
    "BookChanges",
    "Candidate",
    "Plan",
    "PlanItem",
    "Planner",
    "compare_entries",
    "while_connected",
]
