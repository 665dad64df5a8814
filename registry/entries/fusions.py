"""Entries of section ``fusions``: what engines make of shared experts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from preshuffle.registry.base.errors import PlacedError
from preshuffle.registry.base.frozen import Frozen, FrozenDict, freeze
from preshuffle.registry.entries.condition import Condition
from preshuffle.registry.entries.rule import Specificity

Outcome = Literal["fused", "heterogeneous", "apart"]
TABLE = "tuned_fmoe.csv"
"""AITER's table of tuned kernels for experts that are all alike."""

_VERSIONS = frozenset({"engine_version", "aiter"})
_GLOBS = frozenset({"model", "all_to_all"})
_NUMBERS = frozenset({"tp", "ep", "dp", "num_experts", "top_k", "hidden_size", "intermediate_size", "shared_experts"})
_PLAIN = frozenset({"engine", "arch", "model_type", "weight_dtype", "quant_type", "producer", "shared_weight_dtype"})
_FLAGS = frozenset({"shared_alike"})
FUSION_FACTS = tuple(sorted(_VERSIONS | _GLOBS | _NUMBERS | _PLAIN | _FLAGS))
"""Facts that conditions of fusions may use, besides switches (``env``)."""


class FusionEntry(Frozen):
    """What an engine makes of shared experts, under conditions on the layer.

    The most specific entry that holds and has an outcome decides; every entry with a fault that holds is reported. A
    fact that is not known satisfies no condition; ``num_experts`` and ``top_k`` are the routed experts' alone,
    ``shared_alike`` is whether shared and routed experts have the same quantization and size, and ``env`` is a mapping
    of switches to values.

    Attributes:
        when: conditions by fact; ``engine`` is needed.
        one_of: sets of further conditions, of which one must hold; none of them on switches.
        aiter_features: AITER features that must be there, too.
        outcome: whether shared experts run as experts of the layer (``fused``), do so in a quantization of their own
            beside the routed ones (``heterogeneous``), or run apart; None where the entry tells a fault alone.
        per_rank: whether each expert-parallel rank has slots of its own for the shared experts; else they count once
            in the whole layer, and the sum is filled up to a multiple of the ranks.
        masked_column: whether ``topk_ids`` has a column more where an expert mask is passed.
        table: AITER's table of tuned kernels for such a layer.
        priority: breaks a tie between entries that are equally specific.
        fault: what is wrong there: the engine ``stops``, or its results are ``wrong``.
        because: the reason, in words.
        fix: what to do about a fault.
    """

    id: str
    when: Annotated[FrozenDict[str, Any], AfterValidator(freeze)]
    one_of: Annotated[tuple[FrozenDict[str, Any], ...], AfterValidator(freeze)] = ()
    aiter_features: tuple[str, ...] = ()
    outcome: Outcome | None = None
    per_rank: bool = True
    masked_column: bool = False
    table: str = TABLE
    priority: int = 0
    fault: Literal["stops", "wrong"] | None = None
    because: Annotated[str, Field(min_length=1)]
    fix: str | None = None
    evidence: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _conditions_parse(self) -> FusionEntry:
        if not isinstance(self.when.get("engine"), str):
            raise PlacedError(("when",), "engine is needed: whose behaviour it is")
        if (self.outcome is None) == (self.fault is None):
            raise PlacedError(("outcome",), "either an outcome or a fault is needed, in an entry of its own")
        if self.fault and not self.fix:
            raise PlacedError(("fix",), "a fault needs a fix")
        self.conditions()
        self.choices()
        return self

    @property
    def engine(self) -> str:
        """Whose behaviour it is."""
        return str(self.when["engine"])

    @cached_property
    def specificity(self) -> Specificity:
        """Specificity: an AITER feature counts as an exact value.

        ``one_of`` counts as a list.
        """
        kinds = [condition.kind for condition in self._flat.values()]
        exact, lists = kinds.count("exact") + len(self.aiter_features), kinds.count("list") + bool(self.one_of)
        return Specificity(exact, lists, kinds.count("pattern"), self.priority)

    def conditions(self) -> Mapping[str, Condition]:
        """Return the conditions by fact (``env.NAME`` for a switch)."""
        return self._flat

    def choices(self) -> tuple[Mapping[str, Condition], ...]:
        """Return the sets of conditions of which one must hold."""
        return self._choices

    @cached_property
    def _flat(self) -> Mapping[str, Condition]:
        return _conditions(self.when, ("when",))

    @cached_property
    def _choices(self) -> tuple[Mapping[str, Condition], ...]:
        for index, when in enumerate(self.one_of):
            if "env" in when:
                raise PlacedError(("one_of", index, "env"), "switches are conditions of `when` alone")
        return tuple(_conditions(when, ("one_of", index)) for index, when in enumerate(self.one_of))


def _conditions(when: Mapping[str, Any], path: tuple[str | int, ...]) -> Mapping[str, Condition]:
    flat: dict[str, Condition] = {}
    for fact, wanted in when.items():
        if fact == "env" and isinstance(wanted, Mapping):
            for name, value in wanted.items():
                flat[f"env.{name}"] = _condition((*path, fact, name), f"env.{name}", value, "number")
        elif fact in FUSION_FACTS:
            flat[fact] = _condition((*path, fact), fact, wanted, _reading(fact))
        else:
            raise PlacedError((*path, fact), f"unknown fact; valid: {', '.join(FUSION_FACTS)}, env")
    return flat


def _reading(fact: str) -> str:
    kinds = (("version", _VERSIONS), ("glob", _GLOBS), ("number", _NUMBERS))
    return next((kind for kind, facts in kinds if fact in facts), "plain")


def _condition(path: tuple[str | int, ...], fact: str, wanted: Any, reading: str) -> Condition:
    try:
        condition = Condition.parse(fact, wanted, reading)
        if fact in _NUMBERS and any(type(value) is not int for value in condition.values):
            raise ValueError(f"{condition.text!r}: a number, a list of numbers or a range is needed")
        return condition
    except ValueError as error:
        raise PlacedError(path, str(error).removeprefix(f"when.{fact}: ")) from None
