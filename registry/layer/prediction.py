"""Kernels that AITER picks for a call, over token counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from pydantic import ValidationError

from preshuffle.registry.base.memo import Memo
from preshuffle.registry.entries import TABLE
from preshuffle.registry.kernels import KernelChoice, KernelTables, TokenBucket, dispatch, survey
from preshuffle.registry.layer.calls import PossibleCall, dispatch_call, weight_word
from preshuffle.registry.layer.moe_layer import MoELayer

REACH = 65536
"""Largest token count of a deployment: engines form no larger batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Kernels of one call.

    Attributes:
        choices: at the query's token counts.
        judged: ranges of the token counts for which the layer must be right: those that the query states, else all up
            to ``REACH``.
    """

    choices: tuple[KernelChoice, ...] = ()
    judged: tuple[TokenBucket, ...] = ()


class Predictor:
    """Predicts AITER's kernels; memoised by call."""

    def __init__(self, tables: KernelTables | None, memo: Memo) -> None:
        """Use kernel tables, where there are any; ``memo`` stores the predictions."""
        self.tables = tables
        self._memo = memo

    def predict(self, layer: MoELayer, call: PossibleCall) -> Prediction:
        """Return the kernels of a layer's call.

        None for sizes that no call can have.
        """
        if layer.slots.table != TABLE:  # its rows are not known
            return Prediction()
        query, applied = layer.query, layer.applied
        stated = "tokens" in layer.stated
        key = (
            call, query.tokens, stated, query.arch, query.activation, query.quant_type, query.gated,
            layer.passes_mask, layer.masked_column, weight_word(layer), query.env, applied.hidden_pad,
            applied.intermediate_pad, applied.quant_dtype_a,
        )  # fmt: skip
        return self._memo.get("predictions", key, lambda: self._predict(layer, call, stated))

    def at(self, layer: MoELayer, call: PossibleCall, tokens: int) -> KernelChoice | None:
        """Return AITER's choice at one token count.

        None where AITER cannot be called so.
        """
        for bucket in self.predict(layer, call).judged:
            if bucket.lo <= tokens and (bucket.hi is None or tokens <= bucket.hi):
                return bucket.choice
        if layer.slots.table != TABLE:
            return None
        try:
            seen = dispatch_call(layer, call, tokens)
        except ValidationError:
            return None
        choice = dispatch(seen, self.tables, layer.book.families)
        foreign = self._are_foreign(layer, call, (choice,))
        return dispatch(seen, None, layer.book.families) if foreign else choice

    def _predict(self, layer: MoELayer, call: PossibleCall, stated: bool) -> Prediction:
        tokens, families = layer.query.tokens, layer.book.families
        try:
            seen = dispatch_call(layer, call, tokens[0])
        except ValidationError:
            return Prediction()
        choices, ranges = survey(seen, tokens, self.tables, REACH, families)
        if self._are_foreign(layer, call, chain(choices, (bucket.choice for bucket in ranges))):
            choices, ranges = survey(seen, tokens, None, REACH, families)
        return Prediction(tuple(choices), tuple(map(TokenBucket, tokens, tokens, choices)) if stated else ranges)

    def _are_foreign(self, layer: MoELayer, call: PossibleCall, choices: Iterable[KernelChoice]) -> bool:
        """Whether tables not tied to this AITER choose kernels of a later one."""
        if self.tables is None or self.tables.is_tied_to(call.aiter):
            return False
        later = layer.book.families.row_of_later
        return any(later(call.aiter, choice) is not None for choice in choices)
