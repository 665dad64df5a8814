"""Case: a query completed from the book, and the reason's text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preshuffle.registry.base.errors import FieldProblem, NoRecipeError, QueryError
from preshuffle.registry.base.memo import Memo
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import ArchEntry, ModelEntry, Recipe, Scalar, facts_of
from preshuffle.registry.layer import (
    Slots,
    Switches,
    behaves_as,
    check_probed,
    counted_fields,
    expert_slots,
    read_switches,
    shared_experts_of,
)
from preshuffle.registry.loading import Book, Prepared
from preshuffle.registry.resolve.shapes import LayerSizes, call_decision
from preshuffle.registry.values.decision import CallDecision, TensorDecision
from preshuffle.registry.values.query import Query

_NEEDED = (
    "weight_dtype",
    "quant_type",
    "activation",
    "activation_dtype",
    "gate_up_order",
    "hidden_size",
    "intermediate_size",
    "num_experts",
    "top_k",
    "bias",
)


@dataclass(frozen=True, slots=True)
class Case:
    """A query, completed with everything that the book adds.

    Attributes:
        query: as it was requested, with the GPU's gfx name.
        full: the query with the model's facts filled in and the model's own id.
        model: the model's entry, where there is one.
        slots: what the engine makes of shared experts.
        masked_column: whether ``topk_ids`` has one column more than top-k.
    """

    query: Query
    full: Query
    arch: ArchEntry
    model: ModelEntry | None
    switches: Switches
    facts: Mapping[str, Scalar]
    slots: Slots
    masked_column: bool = False

    def call(self, recipe: Recipe, sizes: LayerSizes, tensors: Mapping[Role, TensorDecision]) -> CallDecision:
        """Return the call that a recipe needs on this layer."""
        model = self.model
        swiglu = (self.full.swiglu_limit, model.swiglu_alpha if model else None)
        situ = (model.situ_beta, model.situ_linear_beta) if model else (None, None)
        return call_decision(recipe, sizes, tensors, swiglu, situ, bool(self.full.router_weight_on_input))

    @property
    def sizes(self) -> LayerSizes:
        """The layer's sizes.

        Raises:
            NoRecipeError: names the fields that neither the query nor a model's entry gives.
            QueryError: a token would need more experts than there are.
        """
        values: dict[str, Any] = self.full.__dict__
        missing = [name for name in _NEEDED if values[name] is None]
        if not self.full.gated and "gate_up_order" in missing:
            missing.remove("gate_up_order")
        if missing:
            known = "" if self.model else f"no entry knows model {self.query.model!r}; "
            raise NoRecipeError(f"{known}the query must say: {', '.join(missing)}", missing=missing)
        if values["top_k"] > values["num_experts"]:
            text = f"{values['top_k']} experts for each token, of {values['num_experts']} in all"
            raise QueryError([FieldProblem("top_k", text)])
        return LayerSizes(
            hidden=values["hidden_size"],
            intermediate=values["intermediate_size"],
            experts=values["num_experts"],
            top_k=values["top_k"],
            gated=self.full.gated,
            bias=values["bias"],
            activation=values["activation"],
            quant_type=values["quant_type"],
            gate_up_order=values["gate_up_order"],
            tp=self.full.tp,
            ep=self.full.ep,
        )


def open_case(query: Query, book: Book, memo: Memo | None = None) -> Case:
    """Fill in a query from the book.

    Args:
        query: as it was requested.
        book: where the facts of its model, GPU and switches come from.
        memo: stores what other queries share; None stores nothing.

    Raises:
        NoRecipeError: the arch is unknown.
        QueryError: a switch has a value that it cannot have, or a probed feature is none of the book's.
    """
    arch, query = book.arch_names.complete(query)
    if arch is None:
        raise NoRecipeError(book.arch_names.unknown(query.arch))
    memo = memo or Memo()
    if query.aiter_features:
        check_probed(book, query.aiter_features)
    model = find_model(query.model, book)
    full = query
    if model is not None:
        stated = query.__dict__
        missing = {name: value for name, value in model.given().items() if stated[name] is None}
        full = query.altered(**missing, model=model.id)
    build = behaves_as(book, query.aiter, query.aiter_features) if query.aiter_features else query.aiter
    switches = read_switches(query if build == query.aiter else query.altered(aiter=build), book, memo)
    given = query.num_experts is not None or query.top_k is not None
    slots = expert_slots(full, shared_experts_of(model), switches, book, memo, given=given)
    if counted := counted_fields(full, slots):
        full = full.altered(**counted)
    facts = facts_of(full.__dict__, switches.facts)
    if build != query.aiter:  # rules and requirements ask for the build itself, kernels for what it behaves as
        full = full.altered(aiter=build)
    masked = full.ep > 1 and slots.masked_column is not False
    return Case(query, full, arch, model, switches, facts, slots, masked)


def find_model(name: str, book: Book) -> ModelEntry | None:
    """Return the entry of a model's name.

    A name is an id, an alias, or matches the longest glob among the aliases.
    """
    return book.model_names.find(name)


def reason(case: Case, winner: Prepared, notes: Iterable[str] = ()) -> str:
    """Return the text of why a rule was chosen.

    Args:
        case: the completed query.
        winner: the rule.
        notes: what the answer must say of the engine (``engine_notes``).
    """
    conditions = winner.conditions
    named = winner.named
    names = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else "".join(named)
    parts = [f"{names} match exactly"] if named else []
    if case.model is not None and case.model.id != case.query.model:
        parts.append(f"{case.query.model} is read as {case.model.id}")
    for name, meaning in case.switches.honoured.items():
        state = "decided" if f"env.{name}" in conditions else "is set and was read"
        parts.append(f"the switch {name}={case.query.env[name]} {state}: {meaning}")
    if case.slots.reason:
        parts.append(case.slots.reason)
    if winner.recipe is not None:
        parts += _counted_on(case, winner.recipe.requires.aiter)
    parts += notes
    parts.append(winner.rule.because)
    return "; ".join(parts)


def _counted_on(case: Case, needed: Sequence[str]) -> Iterator[str]:
    """Yield how AITER's features are known, and the release that counts."""
    query = case.query
    aiter = f"AITER {query.aiter}" if query.aiter else "AITER"
    probed = [name for name in needed if name in query.aiter_features]
    others = [name for name in needed if name not in query.aiter_features]
    if probed:
        yield f"{aiter} has {', '.join(probed)} (probed)"
    if others and query.aiter:
        yield f"{aiter} has {', '.join(others)} (by version)"
    if case.full.aiter != query.aiter:
        yield f"by what was probed it is taken as {case.full.aiter}"
