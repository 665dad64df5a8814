"""Search that tests hypotheses against windows of live bytes.

Each window is compared with the plain bytes that a hypothesis puts there.

Windows at the two ends of one expert come first: nearly every layout leaves the first bytes of an expert where they
were, so that they tell ranks, halves and pads apart; windows near it tell layouts apart on few pages of the plain side;
windows all over the tensor then confirm what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import Final, Literal

import torch

from preshuffle.layouts.forensics.hypotheses import Frame, Hypothesis, Predictions
from preshuffle.layouts.forensics.match import ComparedWindow, Group, Match, distinct_rows, match_of, subsumes
from preshuffle.layouts.forensics.source import PAGE, Bytes

WINDOW: Final = 16
"""Live bytes that are compared together: one unit of most layouts, so that they lie on one page of the plain side."""
ROUND: Final = 32
"""Windows of one round of confirmation, one in each equal part of the tensor."""
_ROUNDS = 4
_NEAR_ROWS = 64
_NEAR, _ANYWHERE, _STARTS = 7, 3, 4
_MOST_STANDING = 48
_EVERYWHERE = 8192
_TO_SETTLE = 8
_GLANCE = 16
_GLIMPSE = 0.8
_PADS = 64
_FEWEST = 4


class Search:
    """Budgeted search on one pair of tensors.

    Attributes:
        untested: how many hypotheses were neither contradicted nor confirmed since that would have cost too much.
        home_explained: whether some hypothesis explained every window near there.
        home: the expert near whose start windows were read first.
        contradicted_experts: experts whose bytes contradicted the last explanations that held before.
    """

    def __init__(self, frame: Frame, plain: Bytes, live: Bytes, most_bytes: int, seed: int) -> None:
        """Take both sides and the read budget."""
        self.frame, self.plain, self.live = frame, plain, live
        self.most_bytes = most_bytes - 3 * PAGE  # choosing the next window reads a page before anyone asks
        self.untested = 0
        self.home, self.home_explained = 0, False
        self.contradicted_experts: list[int] = []
        self.random = Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self._offsets = torch.arange(min(WINDOW, frame.nbytes))
        self._last = max(frame.nbytes - WINDOW, 0) // WINDOW
        self._near = list(self._near_windows())

    @property
    def bytes_read(self) -> int:
        """Bytes read of both sides."""
        return self.plain.bytes_read + self.live.bytes_read

    def find_matches(self, hypotheses: list[Hypothesis], share: float, enough: float) -> list[Match]:
        """Return the hypotheses that hold in every sampled window.

        Args:
            hypotheses: all equally likely, the ones to try first in front.
            share: of the budget that telling them apart may have used up at its end.
            enough: log10 of a chance so small that no more windows are needed.
        """
        if not hypotheses:
            return []
        limit = int(share * self.most_bytes)
        first, last = self.bounds(self.home)
        at_home = [window for window in self._near if first <= window <= last - WINDOW]
        alive, _ = self.sieve(Predictions(self.frame, hypotheses), at_home, limit)
        self.home_explained |= bool(alive.hypotheses)
        alive, _ = self.sieve(alive, [window for window in self._near if window not in at_home], limit)
        return self._merge_equal(self._confirm_everywhere(alive, enough))

    def spent(self, share: float) -> bool:
        """Return whether a share of the budget is used up.

        But for what one more sample costs.
        """
        return self.bytes_read + _TO_SETTLE * PAGE > share * self.most_bytes

    def bounds(self, expert: int) -> tuple[int, int]:
        """Return the byte range of an expert in the live tensor."""
        size = self.frame.nbytes // self.frame.live_experts
        return expert * size, (expert + 1) * size

    def nearest(self, hypotheses: list[Hypothesis], most: int) -> list[tuple[Hypothesis, float, float]]:
        """Return the hypotheses that explain most.

        Each with its share of windows everywhere, and of their bytes.
        """
        predictions = Predictions(self.frame, hypotheses)
        good = torch.zeros(len(hypotheses))
        for address in [*self._starts, *self._near]:
            predicted = predictions.of(address + self._offsets)
            right, compared = self._compare_window(self._window(address), predicted, int(_GLIMPSE * self.most_bytes))
            good += right & compared & (predicted >= 0).any(1)
        best = good.argsort(descending=True, stable=True)[:most].tolist()
        predictions = Predictions(self.frame, [hypotheses[number] for number in best])
        windows = torch.zeros(len(best), 2)
        shares_of_bytes = torch.zeros(len(best), 2)
        for address in self._spread()[::2]:
            predicted = predictions.of(address + self._offsets)
            pages = torch.unique(torch.div(predicted, PAGE, rounding_mode="floor")).numel() + 2
            if self.bytes_read + pages * PAGE > self.most_bytes:
                break
            claimed = predicted >= 0
            same = claimed & (self.plain.read(predicted.clamp(min=0)) == self._window(address))
            shares_of_bytes += torch.stack([same.sum(1), claimed.sum(1)], dim=1)
            windows += torch.stack([claimed.any(1) & (same == claimed).all(1), claimed.any(1)], dim=1)
        shares = [(part[:, 0] / part[:, 1].clamp(min=1)).tolist() for part in (windows, shares_of_bytes)]
        return list(zip(predictions.hypotheses, *shares, strict=True))

    def only_byte(self) -> tuple[int | None, int]:
        """Return the sampled bytes' single value, or None, and their number."""
        near = (torch.tensor(self._near).unsqueeze(1) + self._offsets).flatten()
        places = self._affordable(torch.cat([torch.tensor(self._spread()), near]))
        found = torch.unique(self.live.read(places)).tolist()
        return int(found[0]) if len(found) == 1 else None, places.numel()

    def equivalents(self, hypothesis: Hypothesis, others: list[Hypothesis]) -> Group:
        """Return other hypotheses that predict the same bytes.

        They are other names of one thing.
        """
        alive = Predictions(self.frame, others)
        everywhere = self._everywhere()
        for addresses in (everywhere[:_GLANCE], everywhere):
            if alive.hypotheses:
                wanted = Predictions(self.frame, [hypothesis]).of(addresses)
                alive = alive.keep((alive.of(addresses) == wanted).all(1))
        return alive.hypotheses

    def pad_fill(self, hypothesis: Hypothesis) -> int | Literal["mixed"] | None:
        """Return the byte in the pads.

        ``mixed`` where they hold several, None where no pad was met.
        """
        addresses = self._everywhere()
        pads = addresses[Predictions(self.frame, [hypothesis]).of(addresses)[0] < 0][:_PADS]
        pads = self._affordable(pads)
        if not pads.numel():
            return None
        found = torch.unique(self.live.read(pads)).tolist()
        return int(found[0]) if len(found) == 1 else "mixed"

    def _confirm_everywhere(self, alive: Predictions, enough: float) -> list[Match]:
        """Test hypotheses all over the tensor until chance is excluded."""
        seen: list[ComparedWindow] = []
        rich = False
        for _ in range(_ROUNDS):
            alive, seen = self.sieve(alive, self._spread(rich), self.most_bytes, seen)
            if not alive.hypotheses:
                break
            first = match_of(0, alive.hypotheses[0], seen)
            if first.chance <= enough and first.places >= ROUND:
                break
            # pads and runs of zeros are no evidence; where there is little, more varied windows are compared
            rich = first.chance > enough
        matches = [match_of(number, one, seen) for number, one in enumerate(alive.hypotheses)]
        least = _FEWEST if self.bytes_read + 2 * PAGE > self.most_bytes else 1
        found = [match for match in matches if match.places >= least]
        self.untested += len(matches) - len(found)
        return found

    def _merge_equal(self, matches: list[Match]) -> list[Match]:
        """Merge equal explanations and drop those that predict less.

        Where the rest differ, just those bytes are read.
        """
        crowd, matches = matches[_MOST_STANDING:], matches[:_MOST_STANDING]
        if len(matches) < 2:
            return matches
        everywhere = self._everywhere()
        predicted = Predictions(self.frame, [match.group[0] for match in matches]).of(everywhere)
        merged: list[tuple[Match, torch.Tensor]] = []
        for match, prediction in zip(matches, predicted, strict=True):
            for number, (known, known_prediction) in enumerate(merged):
                if torch.equal(prediction, known_prediction):
                    best = min(known, match, key=lambda one: len(one.group[0].faults))
                    merged[number] = (
                        Match((*known.group, *match.group), best.compared, best.places, best.chance),
                        known_prediction,
                    )
                    break
            else:
                merged.append((match, prediction))
        left = list(merged)
        for one in merged:
            for other in left[1:]:
                if left[0] is one:
                    wrong = self._contradicted(one, other, everywhere)
                    left = [entry for entry in left if not any(entry is bad for bad in wrong)]
        kept = [one[0] for one in left if not any(subsumes(other[1], one[1]) for other in left)]
        return [*kept, *crowd]

    def _contradicted(
        self, one: tuple[Match, torch.Tensor], other: tuple[Match, torch.Tensor], everywhere: torch.Tensor
    ) -> list[tuple[Match, torch.Tensor]]:
        """Read where two explanations differ; return the wrong ones."""
        differ = (one[1] != other[1]) & (other[1] >= 0)
        both = differ & (one[1] >= 0)
        places = everywhere[both if bool(both.any()) else differ][:_TO_SETTLE]
        windows = [min(place // WINDOW, self._last) * WINDOW for place in places.tolist()]
        pair = Predictions(self.frame, [one[0].group[0], other[0].group[0]])
        alive, _ = self.sieve(pair, windows, self.most_bytes)
        return [entry for entry in (one, other) if entry[0].group[0] not in alive.hypotheses]

    def sieve(
        self, alive: Predictions, windows: list[int], limit: int, seen: Iterable[ComparedWindow] = ()
    ) -> tuple[Predictions, list[ComparedWindow]]:
        """Drop the hypotheses that a window contradicts.

        Reads no more than ``limit`` bytes in all.

        Returns:
            What is left, and what was compared (``seen`` before) for just those.
        """
        windows_seen = list(seen)
        for batch in _batches(windows):
            if not alive.hypotheses:
                break
            addresses = torch.tensor(batch).unsqueeze(1) + self._offsets
            predicted = alive.of(addresses.flatten()).view(-1, *addresses.shape)
            for number, window in enumerate(addresses):
                if not alive.hypotheses or self.bytes_read + 2 * PAGE > limit:
                    return alive, windows_seen
                found = self.live.read(window)
                right, compared = self._compare_window(found, predicted[:, number], limit)
                windows_seen.append(ComparedWindow(found, (predicted[:, number] >= 0) & compared.unsqueeze(1)))
                if not bool(right.all()):
                    if not bool(right.any()):
                        self._note_contradiction(int(window[0]))
                    alive, predicted = alive.keep(right), predicted[right]
                    windows_seen = [ComparedWindow(one.found, one.claimed[right]) for one in windows_seen]
        return alive, windows_seen

    def _compare_window(
        self, found: torch.Tensor, predicted: torch.Tensor, limit: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which predictions a window supports or contradicts.

        Also which of them could be compared whole.
        """
        claims, which = distinct_rows(predicted)
        claimed = claims >= 0
        known = claimed & self.plain.known(claims.clamp(min=0))
        wanted = found.expand(claims.shape).clone()
        wanted[known] = self.plain.read(claims[known])
        right = (wanted == found).all(1)
        complete = (known == claimed).all(1)
        for number in (right & ~complete).nonzero().flatten().tolist():
            claimed_here = claims[number][claimed[number]]
            unread = claimed_here[~self.plain.known(claimed_here)]
            pages = torch.unique(torch.div(unread, PAGE, rounding_mode="floor")).numel() + 1
            if self.bytes_read + pages * PAGE > limit:
                continue
            complete[number] = True
            right[number] = bool((self.plain.read(claimed_here) == found[claimed[number]]).all())
        return right[which], complete[which] | ~right[which]

    def _note_contradiction(self, address: int) -> None:
        expert = address // max(self.frame.nbytes // self.frame.live_experts, 1)
        if expert not in self.contradicted_experts and expert < self.frame.live_experts:
            self.contradicted_experts.append(expert)

    def _window(self, address: int) -> torch.Tensor:
        return self.live.read(address + self._offsets)

    def _near_windows(self) -> Iterator[int]:
        """Yield windows at an expert's ends, near its start, and anywhere."""
        size = self.frame.nbytes // self.frame.live_experts
        experts = [self.random.randrange(self.frame.live_experts) for _ in range(_STARTS)]
        self._starts = [self._aligned(expert * size) for expert in dict.fromkeys(experts)]
        home = max(
            (expert * size for expert in experts),
            key=lambda start: len(set(self._window(self._aligned(start)).tolist())),
        )
        self.home = home // size
        yield self._aligned(home)
        yield self._aligned(home + size - WINDOW)
        near = max(min(size, _NEAR_ROWS * self.frame.live_k), 1)
        for _ in range(_NEAR):
            yield self.richest(home + self.random.randrange(near))
        for _ in range(_ANYWHERE):
            yield self.richest(self.random.randrange(self.frame.nbytes))

    def _spread(self, rich: bool = False) -> list[int]:
        """Return one window in each equal part of the tensor.

        The richest near a random one, as far as the budget goes.
        """
        windows: list[int] = []
        for part in range(ROUND):
            low, high = (self.frame.nbytes * number // ROUND for number in (part, part + 1))
            place = self.random.randrange(low, max(high, low + 1))
            if rich and self.bytes_read + 2 * PAGE > self.most_bytes:
                break
            windows.append(self.richest(place) if rich else self._aligned(place))
        return windows

    def richest(self, address: int, low: int = 0, high: int | None = None) -> int:
        """Return the most varied window readable at no more cost.

        Of a stretch, where one is given; varied is where bytes change most often.
        """
        first, last = self.live.window(min(address, self.frame.nbytes - 1))
        first, last = max(first, low), min(last, self.frame.nbytes if high is None else high)
        first, count = -(-first // WINDOW), last // WINDOW - -(-first // WINDOW)
        if count < 1:
            return self._aligned(address)
        content = self.live.read(torch.arange(first * WINDOW, (first + count) * WINDOW)).view(count, WINDOW)
        changes = (content[:, 1:] != content[:, :-1]).sum(1)
        best = (changes == changes.max()).nonzero().flatten().tolist()
        return (first + int(self.random.choice(best))) * WINDOW

    def _aligned(self, address: int) -> int:
        return min(max(address, 0) // WINDOW, self._last) * WINDOW

    def _affordable(self, places: torch.Tensor) -> torch.Tensor:
        """Return the live places that the budget allows to read.

        Those on pages read already, and a few others.
        """
        room = max((self.most_bytes - self.bytes_read) // PAGE - 1, 0)
        known = self.live.known(places)
        return torch.cat([places[known], places[~known][:room]])

    def _everywhere(self) -> torch.Tensor:
        nbytes = self.frame.nbytes
        if nbytes <= _EVERYWHERE:
            return torch.arange(nbytes)
        return torch.randint(0, nbytes, (_EVERYWHERE,), generator=self.generator)


def _batches(windows: list[int]) -> list[list[int]]:
    """Yield two windows alone, then all others together.

    Few hypotheses outlive the first two.
    """
    return [batch for batch in (windows[:1], windows[1:2], windows[2:]) if batch]
