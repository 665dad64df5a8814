"""Identification run: hypotheses in order of their faults."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Literal

from preshuffle.layouts.forensics.hypotheses import Hypothesis, HypothesisSpace
from preshuffle.layouts.forensics.identification import ExpertRange, Identification, Nearest, Verdict
from preshuffle.layouts.forensics.match import Group, Match, corrected_chance
from preshuffle.layouts.forensics.mixed import MixedExperts, Stretch
from preshuffle.layouts.forensics.names import FIXES, describe_hypothesis
from preshuffle.layouts.forensics.search import ROUND, Search
from preshuffle.layouts.forensics.shares import Ranks
from preshuffle.registry.base.ranges import range_text
from preshuffle.registry.base.words import GateMode, Role

_SURE = -9.0
_SHARES = (0.35, 0.55, 0.65)
_MOST_NAMES = 12
_MOST_NEAREST = 8


class Identifier:
    """Identification run: hypotheses in order of their faults.

    Whatever holds everywhere with the fewest faults is the answer.
    """

    def __init__(self, role: Role, space: HypothesisSpace, search: Search, ranks: Ranks) -> None:
        """Take the hypotheses, their search and what is known of the rank."""
        self.role, self.space, self.search, self.ranks = role, space, search, ranks
        self.tried = 0
        self._stretches: list[Stretch] = []

    def answer(self) -> Identification:
        """Return the explanation that holds everywhere with the fewest faults."""
        if self.role == "w2_bias" and self.ranks.tp_rank:
            byte, count = self.search.only_byte()
            if byte == 0:
                return self._zeros(count)
        for faults, share in enumerate(_SHARES):
            hypotheses = self.space.hypotheses(faults)
            self.tried += len(hypotheses)
            matches = self.search.find_matches(hypotheses, share, _SURE - log10(max(self.tried, 1)))
            if matches:
                return self._judge(matches)
            if faults < 2 and self.search.home_explained:  # likelier than one mistake more with all experts
                self._stretches = MixedExperts(self.space, self.search, faults, _SURE).stretches()
                if len({id(one.match) for one in self._stretches if one.match}) > 1:
                    return self._mixed()
        return self._unknown()

    def _judge(self, matches: list[Match]) -> Identification:
        best = matches[0]
        if len(matches) == 1 and corrected_chance(best, self.tried) <= _SURE:
            return self._named("identified", best)
        names = list(dict.fromkeys(self._name(match.group[0]) for match in matches))
        unique = tuple(names[:_MOST_NAMES])
        hidden = len(names) - min(len(names), 3)
        more = f"; or {hidden} more" if hidden else ""
        alone = len(matches) == 1
        why = "too few different bytes to tell from chance" if alone else "the sampled bytes fit each of these"
        return self._result("ambiguous", f"{'; or '.join(unique[:3])}{more} ({why})", best, candidates=unique)

    def _zeros(self, count: int) -> Identification:
        """Identify the bias of w2 on a tp rank that adds none of it.

        Each place counts as one byte that is 0 by chance in one of 256 cases.
        """
        rank, tp = self.ranks.tp_rank, self.ranks.tp
        ep = self.space.frame.experts // self.space.frame.live_experts
        places = min(count, ROUND)
        return self._result(
            "identified",
            f"zeros, tp rank {rank}{f' of {tp}' if tp else ''} (rank 0 alone adds this bias)",
            Match((), count, places, -places * log10(256)),
            layout="plain",
            tp_rank=rank,
            tp=tp,
            ep_rank=0 if ep == 1 else self.ranks.ep_rank,
            ep=ep,
        )

    def _mixed(self) -> Identification:
        experts = self._experts()
        matches = [one.match for one in self._stretches if one.match]
        faults = dict.fromkeys(fault for one in experts for fault in one.faults)
        sampled = sum(one.looked for one in experts)
        total = self.space.frame.live_experts
        weakest = max(matches, key=lambda match: match.chance)
        return self._result(
            "mixed",
            _ranges_text(experts) + (f" ({sampled} of {total} experts sampled)" if sampled < total else ""),
            weakest,
            experts=experts,
            faults=("mixed_experts", *faults),
            fixes=(FIXES["mixed_experts"], *(FIXES[fault] for fault in faults)),
        )

    def _experts(self) -> tuple[ExpertRange, ...]:
        return tuple(map(self._range, self._stretches))

    def _range(self, stretch: Stretch) -> ExpertRange:
        where = {"first": stretch.first, "last": stretch.last, "looked": stretch.sampled}
        if stretch.match is None:
            return ExpertRange.model_validate(where)
        one, same = stretch.match.group[0], self._names_of(stretch.match)
        layouts = tuple(step.layout.id for step in one.steps)
        raw = any(self._as_stored(other) for other in same)
        return ExpertRange.model_validate(
            where
            | {
                "name": "raw" if raw else self._name(one),
                "layout": ("plain", *layouts)[-1] if len(layouts) < 2 else None,
                "layouts": layouts,
                "also": tuple(dict.fromkeys(map(self._name, same[not raw :])))[:_MOST_NAMES],
                "raw": raw,
                "faults": () if raw else one.faults,
            }
        )

    def _named(self, verdict: Literal["identified"], match: Match) -> Identification:
        group, one = match.group, match.group[0]
        same = self._names_of(match)
        layouts = tuple(step.layout.id for step in one.steps)
        w13 = self.space.frame.halves == 2
        read = one.read if w13 and self._order_matters(group) else None
        return self._result(
            verdict,
            self._name(one),
            match,
            layout=("plain", *layouts)[-1] if len(layouts) < 2 else None,
            layouts=layouts,
            gate_mode=self._gate_mode(one),
            also=tuple(dict.fromkeys(self._name(other) for other in same[1:]))[:_MOST_NAMES],
            raw=any(self._as_stored(other) for other in same),
            faults=one.faults,
            fixes=tuple(FIXES[fault] for fault in dict.fromkeys(one.faults)),
            read_as=read,
            tp_rank=one.share.ranks[0],
            tp=one.share.ranks[1],
            ep_rank=one.share.ranks[2],
            ep=one.share.ranks[3],
            pad_fill=self.search.pad_fill(one),
        )

    def _names_of(self, match: Match) -> list[Hypothesis]:
        one = match.group[0]
        return [*match.group, *self.search.equivalents(one, self.space.hypotheses(len(one.faults) + 1, of=one.share))]

    def _gate_mode(self, one: Hypothesis) -> GateMode | None:
        """Return the gate mode that reads w13 so.

        A bias says nothing of it: kernels read it in one order for either.
        """
        if self.space.frame.halves == 1 or self.role.endswith("_bias"):
            return None
        return one.steps[-1].layout.gate_mode if len(one.steps) == 1 else "separated"

    def _order_matters(self, group: Group) -> bool:
        return len({one.read for one in group}) == 1 and group[0].write == "GGUU"

    def _as_stored(self, hypothesis: Hypothesis) -> bool:
        return not hypothesis.steps and (self.space.frame.halves == 1 or hypothesis.read == hypothesis.write)

    def _name(self, hypothesis: Hypothesis) -> str:
        return describe_hypothesis(hypothesis, self.space)

    def _unknown(self) -> Identification:
        found = self.search.nearest(self.space.hypotheses(0), _MOST_NEAREST)
        ranked = sorted(found, key=lambda one: one[1:], reverse=True)[:3]
        nearest = tuple(
            Nearest(name=self._name(one), places=round(places, 3), bytes=round(share, 3))
            for one, places, share in ranked
        )
        text = f"none of {self.tried} explanations holds"
        byte, _ = self.search.only_byte()
        if byte is not None:
            text += f"; every sampled live byte is 0x{byte:02x}: nothing was written here"
            text += ", or this rank holds none of it" * (byte == 0)
        elif nearest and nearest[0].places > 0:
            text += f"; nearest: {nearest[0].name}, at {nearest[0].places:.0%} of random places"
        experts = self._experts()
        explained = [one for one in experts if one.name != "unknown"]
        if explained:
            text += f"; {_ranges_text(explained)}"
        return self._result("unknown", text, None, nearest=nearest, experts=experts)

    def _result(self, verdict: Verdict, name: str, match: Match | None, **more: object) -> Identification:
        chance = corrected_chance(match, self.tried) if match else 0.0
        places = match.places if match else 0
        return Identification.model_validate(
            {
                "role": self.role,
                "verdict": verdict,
                "name": name,
                "compared": match.compared if match else 0,
                "places": places,
                "log10_chance": round(chance, 1),
                "confidence": 1.0 - 10.0**chance if match else 0.0,
                "blind_spot": round(1.0 - 0.05 ** (1.0 / min(places, ROUND)), 4) if places else 1.0,
                "hypotheses": self.tried,
                "untested": self.search.untested,
                "bytes_read": self.search.bytes_read,
                "nbytes": self.space.frame.nbytes,
                **more,
            }
        )


def _ranges_text(experts: Sequence[ExpertRange]) -> str:
    return "; ".join(f"{one.name} in {_numbers(one)}" for one in experts)


def _numbers(one: ExpertRange) -> str:
    return f"expert{'' if one.first == one.last else 's'} {range_text(one.first, one.last, ' to ')}"
