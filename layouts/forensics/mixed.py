"""Search for experts of one tensor in different layouts.

That happens where a load, an update or a move reached only some of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import log10
from typing import Final

from preshuffle.layouts.forensics.expert_search import ExpertSearch
from preshuffle.layouts.forensics.hypotheses import Hypothesis, HypothesisSpace
from preshuffle.layouts.forensics.match import Match
from preshuffle.layouts.forensics.search import Search

_SAMPLED = 12
_BUDGET = 0.8
"""Share of the budget that may be used up when the experts are searched for differences."""
_LAST_SAMPLE = 0.95
_AGAIN, _SPREAD = 6, 12
"""Windows that are read in each stretch in the end, and more by its share of the experts."""
_SMALLEST: Final = 64


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring experts whose samples have the same explanation.

    Attributes:
        first: the first expert, by its number in the live tensor.
        last: the last one.
        sampled: how many of them were sampled, the two ends among them; 0 for experts between two that differ which
            the budget did not allow to sample.
        match: what explains their bytes; None where nothing does.
    """

    first: int
    last: int
    sampled: int
    match: Match | None


@dataclass(slots=True)
class MixedExperts:
    """Expert by expert explanation of a tensor.

    Attributes:
        faults: most mistakes that the explanation of one expert may have.
        enough: log10 of a chance so small that an expert counts as explained.
        seen: what was found, by expert; None where nothing explains an expert.
    """

    space: HypothesisSpace
    search: Search
    faults: int
    enough: float
    seen: dict[int, Match | None] = field(default_factory=dict)
    _known_matches: list[Match] = field(default_factory=list)
    _unexplained: int = 0

    def stretches(self) -> list[Stretch]:
        """Return stretches of experts with the same explanation.

        Empty where experts are not slices, or none is explained. A few experts are sampled, then those between two that
        differ, until the border between them is found.
        """
        frame = self.space.frame
        if frame.live_experts < 2 or frame.live_rows % frame.live_experts:
            return []
        if frame.nbytes // frame.live_experts < _SMALLEST:
            return []
        for expert in dict.fromkeys(self._sampled()):
            if not self._sample(expert) or (
                len(self.seen) > 1 and len(self._known_matches) < self._explanations_needed()
            ):
                break
        if not self._known_matches:
            return []
        if len({id(found) for found in self.seen.values()}) > 1:
            self._find_borders()
        return [] if self._one_explains_all() else self._verified_stretches()

    def _verified_stretches(self) -> list[Stretch]:
        """Return the stretches, split where their inside disagrees.

        Stretches are read again inside, not only at their ends.
        """
        while True:
            stretches = list(self._joined_experts())
            torn = next((stretch for stretch in stretches if not self._holds(stretch)), None)
            if torn is None:
                return stretches
            between = [expert for expert in range(torn.first, torn.last + 1) if expert not in self.seen]
            if not between or not all(self._sample(expert) for expert in between):
                return []
            self._find_borders()

    def _explanations_needed(self) -> int:
        """Return how many explanations the first experts must show.

        Without mistakes, two experts must differ, or the tensor is not mixed; else one explained expert is enough.
        """
        return 1 if self.faults else 2

    def _one_explains_all(self) -> bool:
        """Return whether one explanation holds in every expert.

        Then the tensor is not mixed.
        """
        for kind in self._known_matches:
            others = {id(found): expert for expert, found in self.seen.items() if found is not kind}
            if None not in self.seen.values() and all(self._fits(kind, expert) for expert in others.values()):
                return True
        return False

    def _fits(self, kind: Match, expert: int) -> bool | None:
        rivals = self.space.hypotheses(0, of=kind.group[0].share)
        rivals += [other.group[0] for other in self._known_matches if other is not kind]
        return ExpertSearch(self.search).holds(kind, rivals, (expert, expert), 1, _BUDGET)

    def _holds(self, stretch: Stretch) -> bool:
        """Test a stretch's explanation again at windows spread over it.

        An expert whose bytes are themselves mixed may have been explained by one part only.
        """
        if stretch.match is None:
            return True
        share = (stretch.last - stretch.first + 1) / self.space.frame.live_experts
        windows = _AGAIN + int(_SPREAD * share)
        return (
            ExpertSearch(self.search).holds(stretch.match, [], (stretch.first, stretch.last), windows, _LAST_SAMPLE)
            is True
        )

    def _sampled(self) -> Iterator[int]:
        """Yield the experts to sample.

        The one that was read already comes first, then those that contradicted it, then some spread over the tensor.
        """
        yield self.search.home
        yield from self.search.contradicted_experts[:2]
        count = self.space.frame.live_experts
        most = min(count, _SAMPLED)
        yield from (number * (count - 1) // (most - 1) for number in range(most))

    def _sample(self, expert: int) -> bool:
        """Explain one expert; False where the budget is used up."""
        if expert in self.seen:
            return True
        if self.search.spent(_BUDGET):
            return False
        for kind in self._known_matches:
            fits = self._fits(kind, expert)
            if fits is None:
                return False
            if fits:
                self.seen[expert] = kind
                return True
        # hypotheses that failed to explain two experts are not tried again
        found = self._find_explanation(expert) if self._unexplained < 2 else []
        if found is None:
            return False
        self.seen[expert] = self._known_match(found[0]) if len(found) == 1 else None
        self._unexplained += len(found) != 1
        return True

    def _find_explanation(self, expert: int) -> list[Match] | None:
        for faults in range(self.faults + 1):
            found = self._matches_in(expert, self.space.hypotheses(faults))
            if found is None or found:
                return found
        return []

    def _matches_in(self, expert: int, hypotheses: list[Hypothesis]) -> list[Match] | None:
        wanted = self.enough - log10(max(len(hypotheses), 1))
        found = ExpertSearch(self.search).in_expert(expert, hypotheses, _BUDGET, wanted)
        if not found or len(found) == 1 or not self._known_matches:
            return found
        share = self._known_matches[0].group[0].share
        same = [match for match in found if match.group[0].share == share]
        return same or found

    def _known_match(self, match: Match) -> Match:
        """Return the known match of the same explanation."""
        for known in self._known_matches:
            if known.group[0] in match.group:
                return known
        self._known_matches.append(match)
        return match

    def _find_borders(self) -> None:
        """Bisect between neighbours that differ."""
        borders = [pair for pair in pairwise(sorted(self.seen)) if self._differ(*pair)]
        while borders:
            low, high = borders.pop()
            middle = (low + high) // 2
            if middle == low:
                continue
            if not self._sample(middle):
                return
            borders += [pair for pair in ((low, middle), (middle, high)) if self._differ(*pair)]

    def _differ(self, one: int, other: int) -> bool:
        return self.seen[one] is not self.seen[other]

    def _joined_experts(self) -> Iterator[Stretch]:
        """Yield stretches of sampled neighbours that do not differ, and unsampled gaps between them."""
        numbers = sorted(self.seen)
        count = self.space.frame.live_experts
        first, sampled = 0, 0
        for here, after in pairwise([*numbers, count]):
            sampled += 1
            if after < count and not self._differ(here, after):
                continue
            border = after == count or after == here + 1
            last = after - 1 if after == count else here
            yield Stretch(first, last, sampled, self.seen[here])
            if not border:
                yield Stretch(here + 1, after - 1, 0, None)
            first, sampled = after, 0
