"""Routing of tokens to experts, sorted into tiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLOT_SHIFT = 24


@dataclass(frozen=True, slots=True)
class TileRouting:
    """Tokens of each expert, padded to whole tiles.

    Attributes:
        sorted_ids: token and slot (``slot << 24``) of every row of the tiles; pads name token ``tokens``.
        tile_experts: expert of each tile.
        weights: routing weight of every row.
    """

    tokens: int
    top_k: int
    tile_rows: int
    sorted_ids: NDArray[np.int32]
    tile_experts: NDArray[np.int32]
    weights: NDArray[np.float32]

    @property
    def rows(self) -> list[tuple[int, int, int, float]]:
        """Token, slot, expert and weight of each row that is no pad."""
        found = []
        for at, packed in enumerate(self.sorted_ids.tolist()):
            token, slot = packed & (1 << SLOT_SHIFT) - 1, packed >> SLOT_SHIFT
            if token < self.tokens:
                expert = int(self.tile_experts[at // self.tile_rows])
                found.append((token, slot, expert, float(self.weights[at])))
        return found

    def rows_of_input(self, per_slot: bool) -> NDArray[np.int64]:
        """Return the input row of each tile row; -1 for pads.

        The input has a row per token, or per token and slot.
        """
        ids = self.sorted_ids.astype(np.int64)
        token, slot = ids & (1 << SLOT_SHIFT) - 1, ids >> SLOT_SHIFT
        return np.where(token < self.tokens, token * self.top_k + slot if per_slot else token, -1)


def sort_into_tiles(
    tokens_of_expert: Sequence[Sequence[int]],
    tokens: int,
    tile_rows: int,
    weights: NDArray[np.float32] | None = None,
    least_top_k: int = 1,
) -> TileRouting:
    """Sort tokens by expert and pad each expert to whole tiles.

    Args:
        tokens_of_expert: tokens that go to each expert.
        tokens: how many there are.
        tile_rows: rows of a tile.
        weights: routing weight by token; 1 where it is left out.
        least_top_k: slots of a token at least, used or not.
    """
    slots = [0] * tokens
    sorted_ids: list[int] = []
    tile_experts: list[int] = []
    row_weights: list[float] = []
    for expert, chosen in enumerate(tokens_of_expert):
        for token in chosen:
            sorted_ids.append(token | slots[token] << SLOT_SHIFT)
            row_weights.append(1.0 if weights is None else float(weights[token]))
            slots[token] += 1
        pads = -len(chosen) % tile_rows
        tile_experts += [expert] * ((len(chosen) + pads) // tile_rows)
        sorted_ids += [-1] * pads
        row_weights += [0.0] * pads
    top_k = max(least_top_k, *slots)
    pad = tokens | top_k << SLOT_SHIFT
    return TileRouting(
        tokens=tokens,
        top_k=top_k,
        tile_rows=tile_rows,
        sorted_ids=np.array([pad if packed < 0 else packed for packed in sorted_ids], np.int32),
        tile_experts=np.array(tile_experts, np.int32),
        weights=np.array(row_weights, np.float32),
    )
