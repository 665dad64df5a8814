"""The registry of MoE weight layouts: typed, configuration-driven, and it says why. Pure: no torch, no web."""

from preshuffle.registry.check.codes import explain_code
from preshuffle.registry.check.example import observation_of
from preshuffle.registry.decision import Decision, Finding, TensorDecision
from preshuffle.registry.errors import (
    BookError,
    LayoutError,
    NoRecipeError,
    PreshuffleError,
    QueryError,
)
from preshuffle.registry.explain import Explanation
from preshuffle.registry.layout import BoundLayout, Layout
from preshuffle.registry.observation import Applied, Observation, TensorObservation
from preshuffle.registry.permutation import Permutation
from preshuffle.registry.plan import CopyPlan, PlainView, plan_copy
from preshuffle.registry.query import Engine, Query
from preshuffle.registry.recipe import Recipe
from preshuffle.registry.registry import Registry
from preshuffle.registry.report import Report
from preshuffle.registry.rule import Rule

__all__ = [
    "Applied",
    "BookError",
    "BoundLayout",
    "CopyPlan",
    "Decision",
    "Engine",
    "Explanation",
    "Finding",
    "Layout",
    "LayoutError",
    "NoRecipeError",
    "Observation",
    "Permutation",
    "PlainView",
    "PreshuffleError",
    "Query",
    "QueryError",
    "Recipe",
    "Registry",
    "Report",
    "Rule",
    "TensorDecision",
    "TensorObservation",
    "explain_code",
    "observation_of",
    "plan_copy",
]
