"""Resolve a query: choose the recipe, sizes and call."""

from preshuffle.registry.resolve.choose import choose, decisive_facts_of, engine_notes_of
from preshuffle.registry.resolve.engine_runs import EngineRuns, engine_runs
from preshuffle.registry.resolve.explain import Explanation, Irrelevance, LayerFact, RuleTrace, explain
from preshuffle.registry.resolve.kernels import call_of_decision, observed_kernels, predict_kernels, why_not_predicted
from preshuffle.registry.resolve.loader_cut import LoaderCut, loader_cut
from preshuffle.registry.resolve.match import RuleTrial, try_rule
from preshuffle.registry.resolve.observation_of import (
    DISPATCHED,
    applied_by,
    is_predicted,
    observation_of,
    query_of_kernel,
)
from preshuffle.registry.resolve.requirements import REQUIRED_OF, lacking
from preshuffle.registry.resolve.resolver import Judge, LayoutDecision, Resolver
from preshuffle.registry.resolve.shapes import call_decision, tensor_decisions

__all__ = [
    "DISPATCHED",
    "REQUIRED_OF",
    "EngineRuns",
    "Explanation",
    "Irrelevance",
    "Judge",
    "LayerFact",
    "LayoutDecision",
    "LoaderCut",
    "Resolver",
    "RuleTrace",
    "RuleTrial",
    "applied_by",
    "call_decision",
    "call_of_decision",
    "choose",
    "decisive_facts_of",
    "engine_notes_of",
    "engine_runs",
    "explain",
    "is_predicted",
    "lacking",
    "loader_cut",
    "observation_of",
    "observed_kernels",
    "predict_kernels",
    "query_of_kernel",
    "tensor_decisions",
    "try_rule",
    "why_not_predicted",
]
