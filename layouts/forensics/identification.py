"""Result types of identification."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from preshuffle.layouts.forensics.hypotheses import Fault
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.words import GateMode, Role, RowOrder

Verdict = Literal["identified", "mixed", "ambiguous", "unknown"]


class Nearest(Frozen):
    """Near miss: a hypothesis that does not hold, with its agreement.

    The share of random places, and of bytes, that agree.
    """

    name: str
    places: float
    bytes: float


class ExpertRange(Frozen):
    """Explanation of a range of neighbouring experts.

    As far as they were sampled.

    Attributes:
        first: the first expert, by its number in the live tensor.
        last: the last one.
        looked: how many of them were sampled, both ends among them; 0 where the budget allowed none.
        name: the explanation in words, ``raw`` for the checkpoint's own bytes; ``unknown`` where none holds, or
            nothing was sampled.
        layout: the layout's id, where the bytes are in just one.
        layouts: what was applied, in order.
        also: other names of the very same bytes.
        raw: the checkpoint's own bytes, in the checkpoint's own order.
        faults: what no kernel expects.
    """

    first: int
    last: int
    looked: int
    name: str = "unknown"
    layout: str | None = None
    layouts: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    raw: bool = False
    faults: tuple[Fault, ...] = ()


class ExpertSlot(Frozen):
    """Slot behind a rank's routed experts.

    Attributes:
        number: its number in the live tensor.
        holds: the checkpoint's ``shared`` expert, ``zeros``, something ``else``, or ``unknown`` where there is nothing
            to compare it with.
        name: the explanation in words.
    """

    number: int
    holds: Literal["shared", "zeros", "else", "unknown"]
    name: str


class Identification(Frozen):
    """Result of identifying live bytes.

    Attributes:
        verdict: ``identified``: one explanation holds everywhere; ``mixed``: experts lie in different layouts;
            ``ambiguous``: several explanations hold, or one that chance could explain; ``unknown``: none holds.
        name: the explanation in words.
        layout: the layout's id, where the bytes are in just one (``plain`` where they were only copied).
        layouts: what was applied, in order.
        gate_mode: what a kernel needs to read w13 so.
        also: other names of the very same bytes.
        candidates: explanations that the sampled bytes do not distinguish.
        nearest: where unknown, what came nearest.
        experts: where no one explanation holds, what each range of experts is, if some are explained.
        slots: what the slots behind the routed experts hold, where there are any.
        raw: the checkpoint's own bytes, in the checkpoint's own order.
        faults: what no kernel expects.
        fixes: what to do about each.
        read_as: row order in which the loader took the checkpoint's rows.
        tp_rank: of ``tp``; whose rows the bytes are.
        ep_rank: of ``ep``; whose experts the bytes are.
        pad_fill: the byte in the pads, or ``mixed``.
        compared: bytes compared for the explanation.
        places: at how many places.
        log10_chance: how likely so good a match is by chance, given the bytes' frequencies and all hypotheses tried.
        confidence: one minus that chance.
        blind_spot: the largest share of the tensor that could be otherwise and stay unseen (at 95 %).
        hypotheses: how many were tried.
        untested: how many were left out since reading on would have cost more than was allowed.
        bytes_read: of both sides: whole pages and headers of files, single bytes of tensors in memory.
        nbytes: live bytes.
    """

    role: Role
    verdict: Verdict
    name: str
    layout: str | None = None
    layouts: tuple[str, ...] = ()
    gate_mode: GateMode | None = None
    also: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    nearest: tuple[Nearest, ...] = ()
    experts: tuple[ExpertRange, ...] = ()
    slots: tuple[ExpertSlot, ...] = ()
    raw: bool = False
    faults: tuple[Fault, ...] = ()
    fixes: tuple[str, ...] = ()
    read_as: RowOrder | None = None
    tp_rank: int | None = None
    tp: int | None = None
    ep_rank: int | None = None
    ep: int | None = None
    pad_fill: int | Literal["mixed"] | None = None
    compared: int = 0
    places: int = 0
    log10_chance: float = 0.0
    confidence: float = Field(0.0, ge=0, le=1)
    blind_spot: float = Field(1.0, ge=0, le=1)
    hypotheses: int = 0
    untested: int = 0
    bytes_read: int = 0
    nbytes: int
