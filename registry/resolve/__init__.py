"""Resolve a query: choose the recipe, sizes, call and kernels."""

from preshuffle.registry.resolve.case import find_model, open_case
from preshuffle.registry.resolve.choose import choose
from preshuffle.registry.resolve.engine_runs import EngineRuns, engine_runs
from preshuffle.registry.resolve.explain import Explanation, Irrelevance, RuleTrace, explain
from preshuffle.registry.resolve.findings import later_kernel_finding, same_bytes
from preshuffle.registry.resolve.kernels import (
    DISPATCHED,
    REACH,
    dispatch_call,
    is_predicted,
    predict_kernels,
    why_not_predicted,
)
from preshuffle.registry.resolve.known_problems import known_problem_finding
from preshuffle.registry.resolve.match import RuleTrial, try_rule
from preshuffle.registry.resolve.requirements import REQUIRED_OF, lacking
from preshuffle.registry.resolve.resolver import Resolver
from preshuffle.registry.resolve.shapes import tensor_decisions

__all__ = [
    "DISPATCHED",
    "REACH",
    "REQUIRED_OF",
    "EngineRuns",
    "Explanation",
    "Irrelevance",
    "Resolver",
    "RuleTrace",
    "RuleTrial",
    "choose",
    "dispatch_call",
    "engine_runs",
    "explain",
    "find_model",
    "is_predicted",
    "known_problem_finding",
    "lacking",
    "later_kernel_finding",
    "open_case",
    "predict_kernels",
    "same_bytes",
    "tensor_decisions",
    "try_rule",
    "why_not_predicted",
]
