"""Slices of a layer's stored tensors that one rank takes.

Experts, rows, columns, groups and blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import torch

from preshuffle.layouts.tensors import E8M0
from preshuffle.registry import PreshuffleError, Query
from preshuffle.registry.algebra.shard import Slice, split_experts
from preshuffle.registry.base.words import GROUP, Role
from preshuffle.registry.entries import SECOND_LEVEL, CheckpointTensor, StoredDtype
from preshuffle.registry.resolve import LoaderCut

STORED: Final[dict[StoredDtype, torch.dtype]] = {
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int32": torch.int32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "e8m0": E8M0,
}
"""Dtypes in which checkpoints store experts."""

BLOCK: Final = 128
"""Rows, and values of K, that share one scale under per_1x128."""


class CheckpointError(PreshuffleError, ValueError):
    """A checkpoint cannot be read.

    The message names the file and the tensor.
    """


@dataclass(frozen=True, slots=True)
class Part:
    """Slice of every tensor of a layer for one rank.

    Attributes:
        experts: of all routed experts.
        shared: whether the shared expert comes behind them, as an expert of the layer.
        columns: of the intermediate size.
        share: values of the intermediate size in what is returned: more than ``columns`` where the loader cuts by the
            size of a rank's buffer and this rank fills only a part of it.
        group: values of K that share a scale.
        tp_rank: tensor-parallel rank.
    """

    experts: Slice
    shared: bool
    columns: Slice
    share: int
    group: int
    query: Query
    tp_rank: int

    @staticmethod
    def of(query: Query, tp_rank: int, ep_rank: int, routed: int | None = None, cut: LoaderCut | None = None) -> Part:
        """Cut a model between ranks and return one rank's part.

        Args:
            query: its sizes; experts beyond the routed ones are a shared expert on each expert-parallel rank.
            tp_rank: tensor-parallel rank.
            ep_rank: expert-parallel rank.
            routed: how many routed experts the checkpoint has; all that the query counts if None.
            cut: how the loader cuts the intermediate size; as the query's ``shard`` says if None.

        Raises:
            CheckpointError: the query leaves a size out, or has no such rank.
            QueryError: the sizes cannot be cut between the ranks.
        """
        if not (0 <= tp_rank < query.tp and 0 <= ep_rank < query.ep):
            raise CheckpointError(f"rank (tp {tp_rank}, ep {ep_rank}) is not one of tp={query.tp}, ep={query.ep}")
        needed = ("hidden_size", "intermediate_size", "num_experts", "quant_type", "weight_dtype")
        missing = [name for name in needed if getattr(query, name) is None]
        if missing:
            raise CheckpointError(f"the query must say {', '.join(missing)}")
        group = GROUP.get(str(query.quant_type), 1)
        cut = cut or LoaderCut(query.shard or "groups")
        pieces, buffer = cut.shards(query)
        columns = pieces[tp_rank]
        share = buffer if cut.shard in ("whole_blocks", "padded") else columns.size
        count = query.num_experts or 0
        routed = count if routed is None else routed
        if count - routed not in (0, query.ep):
            valid = f"{routed}, or {routed + query.ep} with a shared expert on each expert-parallel rank"
            raise CheckpointError(f"the query counts {count} experts; valid for this checkpoint: {valid}")
        return Part(split_experts(routed, query.ep)[ep_rank], count > routed, columns, share, group, query, tp_rank)

    @property
    def count(self) -> int:
        """How many experts the rank holds, a shared one counted."""
        return self.experts.size + self.shared

    def some(self, first: int, past: int) -> Part:
        """Return the part with only some of the rank's experts.

        They are counted from 0; a shared one is the last.
        """
        begin, size = self.experts.start, self.experts.size
        experts = Slice(begin + min(first, size), begin + min(past, size))
        return replace(self, experts=experts, shared=self.shared and past > size)

    @property
    def sizes(self) -> tuple[int, int]:
        """Hidden and intermediate size of the model."""
        return self.query.hidden_size or 0, self.query.intermediate_size or 0

    def take(self, role: Role, entry: CheckpointTensor, view: Any) -> torch.Tensor:
        """Slice a tensor that holds all experts.

        w13 by rows, w2 by K.

        Raises:
            CheckpointError: it is stored in another shape.
        """
        self._check(role, entry, tuple(view.get_shape()))
        experts = slice(self.experts.start, self.experts.stop)
        intermediate = self.sizes[1]
        if role.startswith("w13"):
            if self.query.gate_up_order == "GUGU":
                rows: torch.Tensor = view[experts, 2 * self.columns.start : 2 * self.columns.stop]
                return _filled(rows, 1, 2 * self.share, entry)
            parts = [view[experts, half + self.columns.start : half + self.columns.stop] for half in (0, intermediate)]
            return torch.cat([_filled(part, 1, self.share, entry) for part in parts], dim=1)
        if role == "w2_bias":
            bias: torch.Tensor = view[experts]
            return bias if self.tp_rank == 0 else torch.zeros_like(bias)
        size = view.get_shape()[2]
        first, last = (edge * size // intermediate for edge in (self.columns.start, self.columns.stop))
        columns: torch.Tensor = view[experts, :, first:last]
        return _filled(columns, 2, self.share * size // intermediate, entry)

    def take_linear(self, role: str, entry: CheckpointTensor, view: Any) -> torch.Tensor:
        """Slice one expert's linear layer ``[rows, K]``.

        A scale of the whole tensor is a single number, and so is a scale's own (``w13_weight_scale_2``).

        Raises:
            CheckpointError: it is stored in another shape.
        """
        found = tuple(view.get_shape())
        wanted = self.linear_shape(role, entry)
        scale = role.endswith(("_scale", SECOND_LEVEL))
        if found != wanted and not (scale and _without_ones(found) == _without_ones(wanted)):
            raise CheckpointError(f"{role} is stored as {found} for each expert; the sizes need {wanted}")
        if not wanted:
            number: torch.Tensor = view[:] if found else view[...]
            return number.reshape(())
        rows = role.startswith("w13")
        first, last, share = self.cut_of(wanted[0 if rows else 1])
        single = wanted[0 if rows else 1] == 1  # one scale for every value of K
        if len(found) < 2:
            taken: torch.Tensor = _filled(view[first:last], 0, share, entry) if rows else view[:]
            return taken.reshape(-1, 1)
        if rows:
            return _filled(view[first:last], 0, share, entry)
        columns: torch.Tensor = view[:] if single else _filled(view[:, first:last], 1, share, entry)
        return columns

    def cut_of(self, size: int) -> tuple[int, int, int]:
        """Return the rank's range of a cut dimension, and its buffer's size.

        The dimension counts the intermediate size in values, groups, blocks or bytes.
        """
        intermediate = self.sizes[1]
        if self.query.quant_type == "per_1x128" and size == -(-intermediate // BLOCK):
            return self.columns.start // BLOCK, -(-self.columns.stop // BLOCK), -(-self.share // BLOCK)
        first, last, share = (
            edge * size // intermediate for edge in (self.columns.start, self.columns.stop, self.share)
        )
        return first, last, share

    def linear_shape(self, role: str, entry: CheckpointTensor) -> tuple[int, ...]:
        """Return the stored shape of one expert's linear layer.

        Gate's or up's alone; of its scales, or ``()`` of a single number.
        """
        hidden, intermediate = self.sizes
        rows, k = (intermediate, hidden) if role.startswith("w13") else (hidden, intermediate)
        if role.endswith(("_input_scale", SECOND_LEVEL)):
            return ()
        if role.endswith("_scale"):
            return SCALES[str(self.query.quant_type)](rows, k)
        return rows, k // self._values(entry)

    def _values(self, entry: CheckpointTensor) -> int:
        """Return how many values one stored element holds."""
        if entry.packed > 1:
            return entry.packed
        return 2 * STORED[entry.dtypes[0]].itemsize if self.query.weight_dtype in ("fp4x2", "i4x2") else 1

    def stored_shape(self, role: str, entry: CheckpointTensor) -> tuple[int, ...]:
        """Return the stored shape of a tensor of all experts.

        A weight's K may be stored as several dimensions.
        """
        hidden, intermediate = self.sizes
        rows, k = (2 * intermediate, hidden) if role.startswith("w13") else (hidden, intermediate)
        wanted: tuple[int, ...] = (self.query.num_experts or 0, rows)
        if role.endswith("_scale"):
            return (*wanted, k // self.group)
        return (*wanted, k // self._values(entry)) if role.endswith("_weight") else wanted

    def _check(self, role: Role, entry: CheckpointTensor, found: tuple[int, ...]) -> None:
        wanted = self.stored_shape(role, entry)
        flat = (*found[:2], prod(found[2:])) if len(found) > 3 else found
        if flat != wanted:
            raise CheckpointError(f"{role} is stored as {found}; the configuration's sizes need {wanted}")


SCALES: Final[dict[str, Callable[[int, int], tuple[int, ...]]]] = {
    "No": lambda rows, k: (),
    "per_Tensor": lambda rows, k: (),
    "per_Token": lambda rows, k: (rows, 1),
    "per_1x32": lambda rows, k: (rows, -(-k // 32)),
    "per_1x128": lambda rows, k: (-(-rows // BLOCK), -(-k // BLOCK)),
}
"""Shape of a linear layer's scales by quant_type, from its rows and its K."""


def unpack_int32(tensor: torch.Tensor) -> torch.Tensor:
    """Unpack int32 words of eight int4 values to int8.

    The first value is in the lowest bits, and each is stored plus 8.

    Source of the fact: compressed-tensors' ``pack-quantized`` format.

    Example:
        >>> unpack_int32(torch.tensor([[0x76543210]], dtype=torch.int32)).tolist()
        [[-8, -7, -6, -5, -4, -3, -2, -1]]
    """
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    nibbles = (tensor.unsqueeze(-1) >> shifts) & 0xF
    return (nibbles - 8).to(torch.int8).flatten(-2)


def _filled(tensor: torch.Tensor, dim: int, size: int, entry: CheckpointTensor) -> torch.Tensor:
    """Return a tensor with zeros behind its last value, up to a size; packed zeros where its words are unpacked."""
    missing = size - tensor.shape[dim]
    if missing <= 0:
        return tensor
    shape = (*tensor.shape[:dim], missing, *tensor.shape[dim + 1 :])
    zero = _PACKED_ZEROS if entry.packed > 1 else 0
    return torch.cat([tensor, torch.full(shape, zero, dtype=torch.int32).to(tensor.dtype)], dim)


_PACKED_ZEROS: Final = -0x77777778
"""A word of eight int4 zeros, each stored plus 8."""


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
