"""How a loader cuts the intermediate size between tensor-parallel ranks."""

from __future__ import annotations

from dataclasses import dataclass

from preshuffle.registry.base.errors import FieldProblem, QueryError
from preshuffle.registry.base.words import Shard
from preshuffle.registry.entries import PadRule, multiple_for
from preshuffle.registry.layer import MoELayer, RankShards, rank_shards
from preshuffle.registry.resolve.choose import chosen
from preshuffle.registry.values.query import Query


@dataclass(frozen=True, slots=True)
class LoaderCut:
    """Way in which a loader cuts.

    Attributes:
        shard: by what it cuts.
        pad: multiples to which the recipe pads a rank's rows; None where no recipe answers the query.
        rule: id of the engine's rule that says ``shard``; None where the query says it, or nothing does.
    """

    shard: Shard
    pad: PadRule | None = None
    rule: str | None = None

    def shards(self, query: Query) -> RankShards:
        """Cut a completed query's intermediate size.

        Raises:
            QueryError: the size cannot be cut so, or slices of the padded size are meant and no recipe says it.
        """
        if self.shard == "padded" and self.pad is None:
            text = "padded: a recipe says the padded size, and none answers the query"
            raise QueryError([FieldProblem("shard", text, ("groups", "values", "whole_blocks"))])
        size, pad = query.intermediate_size or 0, self.pad or 1
        return rank_shards(self.shard, size, query.tp, query.quant_type or "No", lambda share: multiple_for(pad, share))


def loader_cut(layer: MoELayer) -> LoaderCut:
    """Return how a loader cuts a layer between ranks.

    Raises:
        QueryError: the query counts tensor-parallel ranks that cut nothing.
    """
    if layer.query.tp != layer.requested.tp:
        told = layer.requested
        text = f"{told.tp} beside ep {told.ep}: ranks of {told.engine} hold whole experts then"
        raise QueryError([FieldProblem("tp", text, ("1",))])
    choice = chosen(layer)[0]
    rule, recipe = (choice.winner.rule, choice.winner.recipe) if choice else (None, None)
    pad = recipe.tensors["w13_weight"].pad.rows if recipe else None
    stated = layer.query.shard
    if stated is None and rule is not None and rule.shard is not None:
        return LoaderCut(rule.shard, pad, rule.id)
    return LoaderCut(stated or "groups", pad)
