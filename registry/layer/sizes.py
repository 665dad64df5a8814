"""Sizes of one MoE layer, whole and per rank."""

from __future__ import annotations

from dataclasses import dataclass

from preshuffle.registry.algebra.shard import cut, split_experts
from preshuffle.registry.base.errors import FieldProblem, NoRecipeError, QueryError
from preshuffle.registry.base.words import GROUP, ModelActivation, QuantType, RowOrder
from preshuffle.registry.values.query import Query

NEEDED = (
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
"""What must be known of a layer before its tensors can be decided."""


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Sizes of one unsharded MoE layer, with its tensor and expert parallelism."""

    hidden: int
    intermediate: int
    experts: int
    top_k: int
    gated: bool
    bias: bool
    activation: ModelActivation
    quant_type: QuantType
    gate_up_order: RowOrder | None
    tp: int
    ep: int

    @property
    def halves(self) -> int:
        """Blocks of rows in w13: gate and up, or up alone."""
        return 2 if self.gated else 1

    @property
    def group(self) -> int:
        """Values of K that share a scale."""
        return GROUP.get(self.quant_type, 1)

    @property
    def local_experts(self) -> int:
        """Experts of one expert-parallel rank."""
        return split_experts(self.experts, self.ep)[0].size

    def rank_intermediate(self, rank: int) -> int:
        """Intermediate size of one tensor-parallel rank."""
        return cut(self.intermediate, self.tp, self.group)[rank].size


def sizes_of(query: Query, known: bool) -> LayerSizes:
    """Return the sizes of a completed query's layer.

    Args:
        query: with its model's facts filled in.
        known: whether the book has an entry of the model.

    Raises:
        NoRecipeError: names the fields that neither the query nor a model's entry gives.
        QueryError: a token would need more experts than there are.
    """
    values = query.__dict__
    missing = [name for name in NEEDED if values[name] is None]
    if not query.gated and "gate_up_order" in missing:
        missing.remove("gate_up_order")
    if missing:
        unknown = "" if known else f"no entry knows model {query.model!r}; "
        raise NoRecipeError(f"{unknown}the query must say: {', '.join(missing)}", missing=missing)
    if values["top_k"] > values["num_experts"]:
        text = f"{values['top_k']} experts for each token, of {values['num_experts']} in all"
        raise QueryError([FieldProblem("top_k", text)])
    return LayerSizes(
        hidden=values["hidden_size"],
        intermediate=values["intermediate_size"],
        experts=values["num_experts"],
        top_k=values["top_k"],
        gated=query.gated,
        bias=values["bias"],
        activation=values["activation"],
        quant_type=values["quant_type"],
        gate_up_order=values["gate_up_order"],
        tp=query.tp,
        ep=query.ep,
    )
