"""Search for explanations of single experts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from preshuffle.layouts.forensics.hypotheses import Hypothesis, Predictions
from preshuffle.layouts.forensics.match import ComparedWindow, Match, distinct_rows, match_of
from preshuffle.layouts.forensics.search import WINDOW, Search
from preshuffle.layouts.forensics.source import PAGE

_ROUNDS = 4
_MOST_RIVALS = 8
_PLACES = 2048
_FEWEST = 4


@dataclass(frozen=True, slots=True)
class ExpertSearch:
    """Search in single experts, within a search's read budget."""

    search: Search

    def in_expert(self, expert: int, hypotheses: list[Hypothesis], share: float, enough: float) -> list[Match] | None:
        """Return the explanations that hold throughout one expert.

        Args:
            expert: its number in the live tensor.
            hypotheses: all equally likely.
            share: of the budget that may be used up.
            enough: log10 of a chance so small that no more windows are needed.

        Returns:
            None or one explanation, or several where bytes do not tell them from each other or from chance; None where
            the budget does not allow to say.
        """
        first, last = self.search.bounds(expert)
        limit = int(share * self.search.most_bytes)
        alive, seen = Predictions(self.search.frame, hypotheses), list[ComparedWindow]()
        matches: list[Match] = []
        for _ in range(_ROUNDS):
            for _ in range(2):
                if self.search.bytes_read + 2 * PAGE > limit:
                    return None
                window = self.search.richest(self.search.random.randrange(first, last), first, last)
                alive, seen = self.search.sieve(alive, [window], limit, seen)
            alive, seen = self._tell_apart(alive, seen, first, last, limit)
            if not alive.hypotheses:
                return []
            matches = self._grouped(alive, seen, first, last)
            if matches[0].chance <= enough:
                return matches
        return matches * 2  # chance could explain it as well

    def holds(
        self, match: Match, rivals: list[Hypothesis], experts: tuple[int, int], windows: int, share: float
    ) -> bool | None:
        """Return whether an explanation holds in neighbouring experts.

        Args:
            match: the explanation.
            rivals: explanations to distinguish it from: windows in which it differs from each come first.
            experts: the first and the last, by their numbers in the live tensor.
            windows: how many to read besides, as far as the budget goes.
            share: of the budget that may be used up.

        Returns:
            None where the budget did not allow to read even a few.
        """
        first, last = self.search.bounds(experts[0])[0], self.search.bounds(experts[1])[1]
        one, limit = Predictions(self.search.frame, match.group[:1]), int(share * self.search.most_bytes)
        parts = [(first + (last - first) * part // windows, (last - first) // windows) for part in range(windows)]
        starts = [low + self.search.random.randrange(max(length, 1)) for low, length in parts]
        places = [self.search.richest(start, first, last) for start in starts]
        for number, window in enumerate([*self._distinguishing_windows(match.group[0], rivals, first, last), *places]):
            if self.search.bytes_read + 4 * PAGE > limit:
                return True if number >= _FEWEST else None
            one, _ = self.search.sieve(one, [window], limit)
            if not one.hypotheses:
                return False
        return True

    def _distinguishing_windows(self, one: Hypothesis, rivals: list[Hypothesis], first: int, last: int) -> list[int]:
        """Return few windows that tell an explanation from its rivals."""
        starts = -(-first // WINDOW), last // WINDOW
        if starts[1] <= starts[0] or not rivals:
            return []
        places = torch.randint(*starts, (_PLACES,), generator=self.search.generator) * WINDOW
        own = Predictions(self.search.frame, [one]).of(places)[0]
        differ = (Predictions(self.search.frame, rivals).of(places) != own) & (own >= 0)
        windows: list[int] = []
        while bool(differ.any()) and len(windows) < _ROUNDS:
            best = int(differ.sum(0).argmax())
            windows.append(int(places[best]))
            differ = differ[~differ[:, best]]
        return windows

    def _tell_apart(
        self, alive: Predictions, seen: list[ComparedWindow], first: int, last: int, limit: int
    ) -> tuple[Predictions, list[ComparedWindow]]:
        """Read where explanations differ; drop those that predict less.

        Compared with the one that was compared most.
        """
        places = torch.randint(first, last, (_PLACES,), generator=self.search.generator)
        for _ in range(_MOST_RIVALS):
            if len(alive.hypotheses) < 2:
                break
            predicted = alive.of(places)
            best = predicted[int(torch.stack([one.claimed.sum(1) for one in seen]).sum(0).argmax())]
            differ = (predicted != best) & (predicted >= 0)
            less = ~differ.any(1) & (predicted != best).any(1)
            if bool(less.any()):
                alive, seen = alive.keep(~less), [ComparedWindow(one.found, one.claimed[~less]) for one in seen]
                continue
            if not bool(differ.any()):
                break
            place = int(places[differ.sum(0).argmax()])
            window = min(max(place // WINDOW * WINDOW, first), max(last - WINDOW, first))
            if self.search.bytes_read + 2 * PAGE > limit:
                break
            alive, seen = self.search.sieve(alive, [window], limit, seen)
        return alive, seen

    def _grouped(self, alive: Predictions, seen: list[ComparedWindow], first: int, last: int) -> list[Match]:
        """Merge explanations that predict the same bytes of a stretch."""
        places = torch.randint(first, last, (_PLACES,), generator=self.search.generator)
        groups: dict[int, list[int]] = {}
        for number, kind in enumerate(distinct_rows(alive.of(places))[1].tolist()):
            groups.setdefault(kind, []).append(number)
        found = []
        for numbers in groups.values():
            one = match_of(numbers[0], alive.hypotheses[numbers[0]], seen)
            group = tuple(alive.hypotheses[number] for number in numbers)
            found.append(Match(group, one.compared, one.places, one.chance))
        return sorted(found, key=lambda one: one.chance)
