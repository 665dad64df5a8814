"""Registry of MoE weight layouts: typed, configuration-driven, explainable.

It is pure: no torch, no web.

A name is imported on first use: a process that only resolves does not pay for what only ``check`` needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preshuffle.registry.algebra.copy_plan import CopyPlan as CopyPlan
    from preshuffle.registry.algebra.copy_plan import PlainView as PlainView
    from preshuffle.registry.algebra.copy_plan import plan_copy as plan_copy
    from preshuffle.registry.algebra.layout import BoundLayout as BoundLayout
    from preshuffle.registry.algebra.layout import Layout as Layout
    from preshuffle.registry.algebra.permutation import Permutation as Permutation
    from preshuffle.registry.base.errors import BookError as BookError
    from preshuffle.registry.base.errors import LayoutError as LayoutError
    from preshuffle.registry.base.errors import NoRecipeError as NoRecipeError
    from preshuffle.registry.base.errors import PreshuffleError as PreshuffleError
    from preshuffle.registry.base.errors import QueryError as QueryError
    from preshuffle.registry.check import explain_code as explain_code
    from preshuffle.registry.entries import Recipe as Recipe
    from preshuffle.registry.entries import Rule as Rule
    from preshuffle.registry.registry import Registry as Registry
    from preshuffle.registry.resolve import Explanation as Explanation
    from preshuffle.registry.resolve import observation_of as observation_of
    from preshuffle.registry.values.decision import Decision as Decision
    from preshuffle.registry.values.decision import TensorDecision as TensorDecision
    from preshuffle.registry.values.finding import Finding as Finding
    from preshuffle.registry.values.observation import Applied as Applied
    from preshuffle.registry.values.observation import Observation as Observation
    from preshuffle.registry.values.observation import TensorObservation as TensorObservation
    from preshuffle.registry.values.query import Engine as Engine
    from preshuffle.registry.values.query import Query as Query
    from preshuffle.registry.values.report import Report as Report

_HOMES = {
    "check": ("explain_code",),
    "values.decision": ("Decision", "TensorDecision"),
    "values.finding": ("Finding",),
    "base.errors": ("BookError", "LayoutError", "NoRecipeError", "PreshuffleError", "QueryError"),
    "resolve": ("Explanation", "observation_of"),
    "algebra.layout": ("BoundLayout", "Layout"),
    "values.observation": ("Applied", "Observation", "TensorObservation"),
    "algebra.permutation": ("Permutation",),
    "algebra.copy_plan": ("CopyPlan", "PlainView", "plan_copy"),
    "values.query": ("Engine", "Query"),
    "entries": ("Recipe", "Rule"),
    "registry": ("Registry",),
    "values.report": ("Report",),
}
_HOME = {name: f"preshuffle.registry.{home}" for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
