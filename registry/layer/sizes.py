"""Sizes of one MoE layer, whole and per rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from preshuffle.registry.algebra.shard import Slice, cut, cut_slices, cut_values, experts_per_rank
from preshuffle.registry.base.errors import FieldProblem, NoRecipeError, QueryError
from preshuffle.registry.base.words import GROUP, ModelActivation, QuantType, RowOrder, Shard
from preshuffle.registry.values.query import Query

WHOLE_BLOCK: Final = 128
"""Rows of a block of block-scaled fp8, and of AITER's padding, which SGLang cuts by."""
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


class RankShards(NamedTuple):
    """Slices of the intermediate size, one per tensor-parallel rank.

    Attributes:
        pieces: what each rank loads; the last ones may load nothing.
        share: values of a rank's buffer, before a recipe's padding.
    """

    pieces: tuple[Slice, ...]
    share: int


def shard_share(how: Shard, size: int, ranks: int, quant_type: QuantType, multiple: Callable[[int], int]) -> int:
    """Return the size of one slice, in whole blocks or padded.

    Example:
        >>> shard_share("whole_blocks", 1536, 8, "per_1x128", lambda size: 1)
        256
    """
    group = GROUP.get(quant_type, 1)
    block = group if how == "padded" or quant_type == "per_1x32" else WHOLE_BLOCK
    even = -(-size // (ranks * group)) * group
    step = multiple(even) if how == "padded" else block
    return -(-even // step) * step


def rank_shards(how: Shard, size: int, ranks: int, quant_type: QuantType, multiple: Callable[[int], int]) -> RankShards:
    """Cut the intermediate size between the ranks.

    Args:
        how: by what the loader cuts.
        size: of the whole model.
        ranks: tensor-parallel size.
        quant_type: says how many values share a scale.
        multiple: what a rank's share is padded to, by its size.

    Raises:
        QueryError: the size cannot be cut so.
    """
    group = GROUP.get(quant_type, 1)
    if how in ("whole_blocks", "padded"):
        share = shard_share(how, size, ranks, quant_type, multiple)
        return RankShards(cut_slices(size, ranks, share), share)
    pieces = cut_values(size, ranks, group) if how == "values" else cut(size, ranks, group)
    return RankShards(pieces, pieces[0].size)


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
    shard: Shard | None = None

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
        return experts_per_rank(self.experts, self.ep)

    def shards(self, default: Shard | None, multiple: Callable[[int], int]) -> RankShards:
        """Cut the intermediate size between the ranks.

        Args:
            default: how the engine's loader cuts, where the query does not say it; None for whole groups.
            multiple: what a rank's share is padded to, by its size.

        Raises:
            QueryError: the size cannot be cut so.
        """
        how = self.shard or default or "groups"
        return rank_shards(how, self.intermediate, self.tp, self.quant_type, multiple)


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
        shard=query.shard,
    )
