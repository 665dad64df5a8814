"""Byte forensics: identify the layout of live bytes by sampling.

For bytes whose loader is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from preshuffle.layouts.checkpoint import Checkpoint
from preshuffle.layouts.forensics.checkpoint_layer import CheckpointLayer
from preshuffle.layouts.forensics.hypotheses import Fault, HypothesisSpace
from preshuffle.layouts.forensics.identification import ExpertSlot, Identification
from preshuffle.layouts.forensics.identifier import Identifier
from preshuffle.layouts.forensics.names import FIXES
from preshuffle.layouts.forensics.search import Search
from preshuffle.layouts.forensics.shares import Ranks, frame_of, shares_of
from preshuffle.layouts.forensics.slots import ExpertBytes, as_one_expert, held_experts, only_byte
from preshuffle.layouts.forensics.source import Bytes, SourceError, Widened, of_tensor
from preshuffle.registry import Layout, Query, Registry
from preshuffle.registry.base.words import Role, RowOrder

MOST_BYTES = 1_000_000


def identify(
    plain: torch.Tensor | Bytes | CheckpointLayer | Checkpoint,
    live: torch.Tensor | Bytes,
    *,
    role: Role,
    layer: int | None = None,
    query: Query | None = None,
    gate_up_order: RowOrder | None = None,
    gated: bool = True,
    tp: int | None = None,
    ep: int | None = None,
    tp_rank: int | None = None,
    ep_rank: int | None = None,
    num_experts: int | None = None,
    shared: torch.Tensor | Bytes | None = None,
    registry: Registry | None = None,
    most_bytes: int = MOST_BYTES,
    seed: int = 0,
) -> Identification:
    """Identify the layout of live bytes from a few hundred samples.

    Args:
        plain: the checkpoint's whole tensor: ``[E, rows, K]`` (a bias ``[E, rows]``), as stored; or an open checkpoint
            or a layer of one, which also say the model's facts and the shared expert.
        live: what one rank holds: ``[E, rows, K]`` or ``[E * rows, K]``, padded or not.
        role: which tensor of the layer it is.
        layer: which layer of an open checkpoint; its first one with experts by default.
        query: the model's facts (tp and ep where it states them); what is given beside it wins.
        gate_up_order: row order of the checkpoint's w13; where it is unknown, either is accepted.
        gated: whether w13 holds gate and up.
        tp: tensor-parallel size; found out where it is not given, as are the ranks and ``ep``.
        ep: expert-parallel size.
        tp_rank: the rank that the bytes should be of; another one's are then a fault.
        ep_rank: likewise.
        num_experts: experts of the layer as the engine holds it: the routed ones and the slots of all ranks behind
            them, in which shared experts are fused or nothing lies.
        shared: the checkpoint's shared expert, ``[rows, K]``, which may lie in the first of those slots.
        registry: whose book's layouts may have been applied.
        most_bytes: what may be read of both sides.
        seed: of the random places.

    Raises:
        SourceError: shapes or dtypes cannot belong together.
        LayoutError: a tensor is not contiguous.

    Example:
        >>> from preshuffle.layouts import apply_layout
        >>> plain = torch.randint(0, 256, (2, 64, 128), dtype=torch.uint8)
        >>> identify(plain, apply_layout(plain, "gui16"), role="w13_weight").layout
        'gui16'
    """
    book = (registry or Registry.default()).book
    if isinstance(plain, Checkpoint):
        plain = CheckpointLayer.of(plain, layer)
    if isinstance(plain, CheckpointLayer):
        query, shared = query or plain.query, shared if shared is not None else plain.shared_of(role)
        plain = plain.needed(role)
    stated = query.model_dump(include={"tp", "ep"}, exclude_unset=True) if query else {}
    wanted = Ranks(tp or stated.get("tp"), ep or stated.get("ep"), tp_rank, ep_rank)
    there = plain if isinstance(plain, Bytes) else of_tensor(plain, "plain")
    here = live if isinstance(live, Bytes) else of_tensor(live, "live")
    if there.dtype == "BF16" and here.dtype == "F32":
        here = Widened(here)
    order = gate_up_order or (query.gate_up_order if query else None)
    layouts = {name: entry.layout() for name, entry in book.layouts.items()}
    side = _Side(role, query, query.gated if query else gated, order, layouts, seed)
    one = None if shared is None else shared if isinstance(shared, Bytes) else of_tensor(shared, "the shared expert")
    held = None
    if num_experts is not None or one is not None:
        held = held_experts(there.shape[0], here, wanted.ep, num_experts, role.endswith("_bias"))
    if held is None:
        return side.identify(there, here, wanted, most_bytes)
    if one is not None and one.nbytes * there.shape[0] != there.nbytes:
        one = None  # of another size or dtype: nothing to compare bytes with
    total = held.routed + held.slots
    routed = ExpertBytes(here, 0, held.routed, total)
    found = side.identify(there, routed, replace(wanted, ep=held.ep), most_bytes * 2 // 3)
    budget = most_bytes // (3 * held.slots)
    slots = [
        side.slot(ExpertBytes(here, number, 1, total), number, one if number == held.routed else None, found, budget)
        for number in range(held.routed, total)
    ]
    return _with_slots(found, slots, here)


def _with_slots(found: Identification, slots: Sequence[ExpertSlot], live: Bytes) -> Identification:
    """Add to what the routed experts are what the slots behind them hold."""
    spoilt = any(slot.holds == "else" for slot in slots)
    more: tuple[Fault, ...] = ("other_slot",) if spoilt else ()
    said = "; ".join(f"slot {slot.number} {slot.name}" for slot in slots)
    return found.model_copy(
        update={
            "name": f"{found.name}; {said}",
            "slots": tuple(slots),
            "faults": (*found.faults, *more),
            "fixes": (*found.fixes, *(FIXES[fault] for fault in more)),
            "bytes_read": found.bytes_read + live.bytes_read,
            "nbytes": live.nbytes,
        }
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """What every identification of one tensor shares."""

    role: Role
    query: Query | None
    gated: bool
    order: RowOrder | None
    layouts: Mapping[str, Layout]
    seed: int

    def identify(self, plain: Bytes, live: Bytes, ranks: Ranks, most_bytes: int) -> Identification:
        """Identify experts against the checkpoint's."""
        frame = frame_of(self.role, plain, live, ranks, self.gated)
        order = self.order if frame.halves == 2 else None
        shares = shares_of(self.role, frame, ranks, self.query, plain.dtype)
        space = HypothesisSpace(frame, self.layouts, self.role.endswith("_scale"), order, shares)
        return Identifier(self.role, space, Search(frame, plain, live, most_bytes, self.seed), ranks).answer()

    def slot(
        self, live: Bytes, number: int, shared: Bytes | None, found: Identification, most_bytes: int
    ) -> ExpertSlot:
        """Say what one slot holds.

        Args:
            live: the slot's bytes.
            number: its number in the live tensor.
            shared: the checkpoint's shared expert that belongs there; None where there is none.
            found: what the routed experts are.
            most_bytes: what may be read.
        """
        byte = only_byte(live, self.seed)
        if byte == 0:
            return ExpertSlot(number=number, holds="zeros", name="is empty (zeros)")
        if shared is None:
            return ExpertSlot(number=number, holds="unknown", name="has no bytes of the checkpoint to be compared with")
        try:
            plain = as_one_expert(shared, self.role.endswith("_bias"))
            ranks = Ranks(found.tp, 1, found.tp_rank, 0)
            one = self.identify(plain, live, ranks, most_bytes)
        except SourceError as error:
            return ExpertSlot(number=number, holds="unknown", name=f"cannot be compared ({error})")
        if one.verdict == "unknown" or one.faults:
            return ExpertSlot(number=number, holds="else", name=f"does not hold the shared expert: {one.name}")
        if one.verdict == "identified" and found.verdict == "identified" and not _alike(one, found):
            return ExpertSlot(
                number=number, holds="else", name=f"holds the shared expert in another layout: {one.name}"
            )
        return ExpertSlot(number=number, holds="shared", name="holds the shared expert")


def _alike(one: Identification, other: Identification) -> bool:
    return one.layouts == other.layouts and one.read_as in (other.read_as, None)
