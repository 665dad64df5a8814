"""Byte forensics: which layout live bytes are in, found by sampling, for when nobody knows what a loader did."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from preshuffle.layouts.identify_evidence import Evidence, Tally
from preshuffle.layouts.identify_family import Family, Fault, Hypothesis
from preshuffle.layouts.identify_names import name_of
from preshuffle.layouts.identify_search import Group, Search
from preshuffle.layouts.identify_shares import Ranks, frame_of, shares_of
from preshuffle.layouts.identify_source import PAGE, Bytes, Widened, of_tensor
from preshuffle.registry import Query, Registry
from preshuffle.registry.query import Frozen
from preshuffle.registry.words import GateMode, Role, RowOrder

MOST_BYTES = 1_000_000
_SURE = -9.0
_CONFIRM = 2 * 20 * PAGE
_MOST_NAMES = 12
_MOST_ALIVE = 16
_GLANCES = 2
_MOST_FAULTS = 2


class Nearest(Frozen):
    """How near a hypothesis came that did not hold: the share of random places, and of bytes, that agree."""

    name: str
    places: float
    bytes: float


class Identification(Frozen):
    """What live bytes are.

    Attributes:
        verdict: ``identified``: one explanation holds everywhere; ``ambiguous``: several hold, or one that chance could
            explain; ``unknown``: none holds.
        name: the explanation in words.
        layout: the layout's id, where the bytes are in just one (``plain`` where they were only copied).
        layouts: what was applied, in order.
        gate_mode: what a kernel needs to read w13 so.
        also: other names of the very same bytes.
        candidates: explanations that were not told apart.
        nearest: where unknown, what came nearest.
        raw: the checkpoint's own bytes, in the checkpoint's own order.
        faults: what no kernel expects.
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
    verdict: Literal["identified", "ambiguous", "unknown"]
    name: str
    layout: str | None = None
    layouts: tuple[str, ...] = ()
    gate_mode: GateMode | None = None
    also: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    nearest: tuple[Nearest, ...] = ()
    raw: bool = False
    faults: tuple[Fault, ...] = ()
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


def identify(
    plain: torch.Tensor | Bytes,
    live: torch.Tensor | Bytes,
    *,
    role: Role,
    query: Query | None = None,
    gate_up_order: RowOrder | None = None,
    gated: bool = True,
    tp: int | None = None,
    ep: int | None = None,
    tp_rank: int | None = None,
    ep_rank: int | None = None,
    registry: Registry | None = None,
    most_bytes: int = MOST_BYTES,
    seed: int = 0,
) -> Identification:
    """Say which layout live bytes are in, reading a few hundred places of them.

    Args:
        plain: the checkpoint's whole tensor: ``[E, rows, K]`` (a bias ``[E, rows]``), as stored.
        live: what one rank holds: ``[E, rows, K]`` or ``[E * rows, K]``, padded or not.
        role: which tensor of the layer it is.
        query: the model's facts (tp and ep where it states them); what is given beside it wins.
        gate_up_order: row order of the checkpoint's w13; if nobody says, either is accepted.
        gated: whether w13 holds gate and up.
        tp: tensor-parallel size; found out where it is not given, as are the ranks and ``ep``.
        ep: expert-parallel size.
        tp_rank: the rank that the bytes should be of; another one's are then a fault.
        ep_rank: likewise.
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
    said = query.model_dump(include={"tp", "ep"}, exclude_unset=True) if query else {}
    wanted = Ranks(tp or said.get("tp"), ep or said.get("ep"), tp_rank, ep_rank)
    there = plain if isinstance(plain, Bytes) else of_tensor(plain, "plain")
    here = live if isinstance(live, Bytes) else of_tensor(live, "live")
    if there.dtype == "BF16" and here.dtype == "F32":
        here = Widened(here)
    frame = frame_of(role, there, here, wanted, query.gated if query else gated)
    order = (gate_up_order or (query.gate_up_order if query else None)) if frame.halves == 2 else None
    layouts = {name: entry.layout() for name, entry in book.layouts.items()}
    shares = shares_of(role, frame, wanted, query, there.dtype)
    family = Family(frame, layouts, role.endswith("_scale"), order, shares)
    search = Search(Evidence(frame, there, here), torch.Generator().manual_seed(seed), most_bytes)
    return _Inquiry(role, family, search).answer()


class _Inquiry:
    """Hypotheses with few faults before those with more; what stands is then challenged by the next."""

    def __init__(self, role: Role, family: Family, search: Search) -> None:
        self.role, self.family, self.search = role, family, search
        self.tried = 0
        self.unlisted = 0

    def answer(self) -> Identification:
        before: set[Hypothesis] = set()
        for faults in range(_MOST_FAULTS + 1):
            hypotheses = [one for one in self.family.hypotheses(faults) if one not in before]
            before.update(hypotheses)
            self.tried += len(hypotheses)
            standing = self._standing(hypotheses)
            if standing:
                return self._judge(
                    self._challenged(standing, before) if not faults and len(standing) == 1 else standing
                )
        return self._unknown()

    def _standing(self, hypotheses: list[Hypothesis], reserve: int = _CONFIRM) -> list[Group]:
        """Return the explanations that hold wherever the hypotheses differ, and at random places."""
        alive = self.search.narrow(hypotheses, reserve) if hypotheses else []
        groups = self._merged(alive)
        held = [group for group in groups[:_MOST_NAMES] if self.search.confirm(group)]
        return self.search.strongest([*held, *groups[_MOST_NAMES:]])

    def _challenged(self, standing: list[Group], before: set[Hypothesis]) -> list[Group]:
        """Let hypotheses with one fault compete with what stands: bytes of low entropy may be those, too."""
        more = [one for one in self.family.hypotheses(1) if one not in before]
        self.tried += len(more)
        alive = self.search.narrow([*(group[0] for group in standing), *more], 0)
        first = {one: group for group in standing for one in group}
        groups = self._merged(alive)
        merged = [tuple(dict.fromkeys([*first.get(group[0], ()), *group])) for group in groups]
        held = {group[0] for group in standing}
        # what the budget did not reach again has not been contradicted
        missing = [group for group in standing if group[0] not in {one for found in merged for one in found}]
        kept = [group for group in missing if self._tally(group).matched == self._tally(group).compared]
        return self.search.strongest(sorted([*merged, *kept], key=lambda group: group[0] not in held))

    def _merged(self, alive: list[Hypothesis]) -> list[Group]:
        """Merge what is the same; where very many are left, the bytes say nothing, and a few names do."""
        if len(alive) > _MOST_ALIVE:  # those that take most places for pads are seldom contradicted by others' places
            alive = [one for one in alive if self.search.confirm((one,), _GLANCES)]
        self.unlisted += len(alive[_MOST_ALIVE:])
        return self.search.settle(self.search.groups(alive[:_MOST_ALIVE]))

    def _tally(self, group: Group) -> Tally:
        return self.search.evidence.tallies.get(group[0], Tally())

    def _judge(self, groups: list[Group]) -> Identification:
        best = groups[0]
        chance = self.search.evidence.weight(best[0], self.tried)
        if len(groups) == 1 and chance <= _SURE:
            return self._named("identified", best)
        names = [self._name(group[0]) for group in groups]
        listed = tuple(names[:_MOST_NAMES])
        hidden = len(names) + self.unlisted - min(len(names), 3)
        more = f"; or {hidden} more" if hidden else ""
        why = (
            "too few different bytes to tell from chance" if len(groups) == 1 else "the sampled bytes fit each of these"
        )
        return self._result("ambiguous", f"{'; or '.join(listed[:3])}{more} ({why})", best, candidates=listed)

    def _named(self, verdict: Literal["identified"], group: Group) -> Identification:
        one = group[0]
        layouts = tuple(step.layout.id for step in one.steps)
        w13 = self.family.frame.halves == 2
        read = one.read if w13 and self._order_matters(group) else None
        return self._result(
            verdict,
            self._name(one),
            group,
            layout=("plain", *layouts)[-1] if len(layouts) < 2 else None,
            layouts=layouts,
            gate_mode=one.steps[-1].layout.gate_mode if w13 and len(one.steps) == 1 else "separated" if w13 else None,
            also=tuple(dict.fromkeys(self._name(other) for other in group[1:]))[:_MOST_NAMES],
            raw=not one.steps and self._as_stored(group),
            faults=one.faults,
            read_as=read,
            tp_rank=one.share.ranks[0],
            tp=one.share.ranks[1],
            ep_rank=one.share.ranks[2],
            ep=one.share.ranks[3],
            pad_fill=self.search.pad_fill(one),
        )

    def _order_matters(self, group: Group) -> bool:
        return len({one.read for one in group}) == 1 and group[0].write == "GGUU"

    def _as_stored(self, group: Group) -> bool:
        return self.family.frame.halves == 1 or any(
            (one.read, one.write) in (("GGUU", "GGUU"), ("GUGU", "GUGU")) for one in group
        )

    def _name(self, hypothesis: Hypothesis) -> str:
        return name_of(hypothesis, self.family)

    def _unknown(self) -> Identification:
        plausible = self.family.hypotheses(0)[:6]
        self.search.evidence.tallies.clear()
        self.search.score(plausible)
        found = []
        for hypothesis in plausible:
            tally = self.search.evidence.tallies.get(hypothesis)
            if tally is not None:
                shares = round(tally.good_places / tally.places, 3), round(tally.matched / tally.compared, 3)
                found.append(Nearest(name=self._name(hypothesis), places=shares[0], bytes=shares[1]))
        nearest = tuple(sorted(found, key=lambda one: (one.places, one.bytes), reverse=True)[:3])
        text = f"none of {self.tried} explanations holds"
        if nearest and nearest[0].places > 0:
            text += f"; nearest: {nearest[0].name}, at {nearest[0].places:.0%} of random places"
        return self._result("unknown", text, None, nearest=nearest)

    def _result(
        self, verdict: Literal["identified", "ambiguous", "unknown"], name: str, group: Group | None, **more: object
    ) -> Identification:
        evidence = self.search.evidence
        tally = self._tally(group) if group else Tally()
        chance = round(evidence.weight(group[0], self.tried), 1) if group else 0.0
        return Identification.model_validate(
            {
                "role": self.role,
                "verdict": verdict,
                "name": name,
                "compared": tally.compared,
                "places": tally.places,
                "log10_chance": chance,
                "confidence": 1.0 - 10.0**chance if group else 0.0,
                "blind_spot": round(1.0 - 0.05 ** (1.0 / tally.places), 4) if tally.places else 1.0,
                "hypotheses": self.tried,
                "untested": self.search.cut_short,
                "bytes_read": evidence.bytes_read,
                "nbytes": self.family.frame.nbytes,
                **more,
            }
        )
