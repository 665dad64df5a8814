"""Explanation of a resolution: every rule considered, and its outcome."""

from __future__ import annotations

from typing import Literal

from preshuffle.registry.base.frozen import Frozen, FrozenDict
from preshuffle.registry.entries import Scalar
from preshuffle.registry.layer import MoELayer, Source, layer_of
from preshuffle.registry.loading import Book
from preshuffle.registry.resolve.choose import engine_notes_under
from preshuffle.registry.resolve.match import RuleTrial, try_rules
from preshuffle.registry.values.query import Query

Outcome = Literal["chosen", "nothing works", "less specific", "lacks a requirement", "does not match"]


Irrelevance = Literal["engine", "arch", "weights", "activation"]
_IRRELEVANT_FOR: dict[Irrelevance, tuple[str, ...]] = {
    "engine": ("engine",),
    "arch": ("arch",),
    "weights": ("weight_dtype", "quant_type"),
    "activation": ("activation",),
}


_LAYER_FACTS = (
    "arch", "cu_num", "weight_dtype", "quant_type", "activation", "activation_dtype", "gate_up_order", "producer",
    "hidden_size", "intermediate_size", "num_experts", "top_k", "gated", "bias", "router_weight_on_input",
    "activation_scales", "swiglu_limit", "shard", "tp", "ep", "dp", "all_to_all", "aiter",
)  # fmt: skip


class RuleTrace(Frozen):
    """Outcome of one rule.

    Attributes:
        recipe: what it uses; None where it says that nothing works.
        outcome: ``nothing works`` where it wins, and says that no recipe is right.
        missed: conditions that did not hold.
        lacking: what its recipe requires that is not there.
        aside: why it is irrelevant here: for another ``engine``, ``arch``, ``activation`` or other ``weights``;
            None where it was in question.
    """

    rule: str
    recipe: str | None
    outcome: Outcome
    required: FrozenDict[str, str]
    found: FrozenDict[str, Scalar]
    missed: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    aside: Irrelevance | None = None
    why: str


class LayerFact(Frozen):
    """One fact of the layer, and where it comes from.

    Attributes:
        source: ``given`` by the query, the ``model``'s entry, a habit of the ``engine``, what an ``aiter`` build is
            taken for, ``observed``, a ``default``, or ``unknown``.
    """

    value: Scalar | float
    source: Source


class Explanation(Frozen):
    """The whole path from a query to its rule.

    Attributes:
        model: the model's entry, where there is one.
        unverified: facts that come from it and rest on general knowledge, not on the checkpoint's own files.
        note: what else it says an operator should know.
        counted: why shared experts count among the experts; empty where none do.
        engine: what is to be said of the engine or its version, where the book does not know it.
        layer: the layer's facts, as rules and kernels see them, each with its source.
    """

    query: Query
    model: str | None
    unverified: tuple[str, ...] = ()
    note: str = ""
    counted: str = ""
    engine: tuple[str, ...] = ()
    layer: FrozenDict[str, LayerFact]
    switches: FrozenDict[str, str]
    rules: tuple[RuleTrace, ...]
    registry_digest: str

    @property
    def in_question(self) -> tuple[RuleTrace, ...]:
        """Rules for this engine, GPU, weights and activation.

        Where there are none, the three that miss the least.
        """
        relevant = tuple(rule for rule in self.rules if rule.aside is None)
        return relevant or tuple(sorted(self.rules, key=lambda rule: len(rule.missed))[:3])


def explain(query: Query, book: Book) -> Explanation:
    """Explain a query, also where no rule matches.

    Raises:
        NoRecipeError: the arch is unknown.
        QueryError: a switch has a value that it cannot have.
    """
    layer = layer_of(query, book).checked()
    trials = try_rules(book, layer.rule_facts)
    winner = next((item for item in trials if item.usable), None)
    order = sorted(trials, key=lambda item: (not item.matches, bool(item.lacking)))
    return Explanation(
        query=query,
        model=layer.model.id if layer.model else None,
        unverified=tuple(name for name in layer.model.unverified if getattr(query, name, None) is None)
        if layer.model
        else (),
        note=layer.model.note if layer.model else "",
        counted=layer.slots.reason,
        engine=engine_notes_under(book, query.engine, winner.rule if winner else None),
        layer=FrozenDict({name: _fact(layer, name) for name in _LAYER_FACTS}),
        switches=FrozenDict(layer.switches.values),
        rules=tuple(_trace(item, winner) for item in order),
        registry_digest=book.digest,
    )


def _fact(layer: MoELayer, name: str) -> LayerFact:
    return LayerFact(value=getattr(layer.query, name), source=layer.source_of(name))


def _trace(item: RuleTrial, winner: RuleTrial | None) -> RuleTrace:
    outcome: Outcome
    if item is winner:
        outcome, why = "chosen" if item.recipe else "nothing works", item.rule.because
    elif item.usable:
        outcome, why = "less specific", f"{winner.rule.id if winner else ''} is more specific"
    elif item.matches:
        outcome, why = "lacks a requirement", item.why_not
    else:
        outcome, why = "does not match", item.why_not
    missed = tuple(miss.field for miss in item.misses)
    return RuleTrace(
        rule=item.rule.id,
        recipe=item.recipe.id if item.recipe else None,
        outcome=outcome,
        required=FrozenDict(item.required),
        found=FrozenDict(item.found),
        missed=missed,
        lacking=item.lacking,
        aside=_irrelevance(missed),
        why=why,
    )


def _irrelevance(missed: tuple[str, ...]) -> Irrelevance | None:
    """Return what the rule is not for, by its first miss."""
    for kind, fields in _IRRELEVANT_FOR.items():
        if any(name in missed for name in fields):
            return kind
    return None
