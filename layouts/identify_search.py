"""Testing hypotheses against bytes: reading where survivors contradict each other, until one explanation is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from preshuffle.layouts.identify_evidence import WINDOW, Evidence, Predictions, Tally
from preshuffle.layouts.identify_family import Hypothesis
from preshuffle.layouts.identify_source import PAGE

_CANDIDATES = 48
_FEWEST = 32
_PREDICTIONS = 12000
_ROUNDS = 64
_GLEANED = 192
_FREE_PLACES = 3
_PAID_PAGES = 24
_DOUBT = 0.3
_ENOUGH = 4
_LITTLE = 1e-6
_NOTHING = Tally()
_PATIENCE = 6
_EXHAUSTIVE = 1 << 16
_PLACES = 1 << 14
_RANDOM_WINDOWS = 40
_PLACES_TO_SETTLE = 8
_PADS = 12

Group = tuple[Hypothesis, ...]
"""Hypotheses that no position tells apart: one explanation with several names."""


@dataclass(slots=True)
class Search:
    """The reading of one pair of tensors, within a budget.

    Attributes:
        evidence: what was read and compared.
        random: where the random places come from.
        most_bytes: what may be read.
        cut_short: hypotheses that the budget left untested.
    """

    evidence: Evidence
    random: torch.Generator
    most_bytes: int
    cut_short: int = 0
    _seen: list[tuple[int, int]] = field(default_factory=list)
    _home: int | None = None
    _used: set[int] = field(default_factory=set)

    def narrow(self, hypotheses: list[Hypothesis], reserve: int) -> list[Hypothesis]:
        """Drop what the bytes contradict, reading where most of the rest differ; ``reserve`` bytes stay unread."""
        alive, idle = hypotheses, 0
        for number in range(_ROUNDS):
            if len(alive) < 2 or idle >= _PATIENCE:
                break
            if idle or not number:
                self._look_around(3)
            before = len(alive)
            alive = self._glean(alive)
            if self._left(reserve) <= 0:
                break
            choice = None
            if len(alive) > 1:
                most = max(_FEWEST, min(_CANDIDATES, _PREDICTIONS // len(alive)))
                # what is read already has nothing more to say of them? then anywhere
                choice = self._discriminating(alive, self._candidates(most))
                choice = choice or self._discriminating(alive, self._random_windows(2 * most))
            if choice is not None:
                alive = self._test(alive, *choice, reserve)
            idle = 0 if len(alive) < before else idle + 1
        if len(alive) > 1 and self._left(reserve) <= 0:
            self.cut_short += len(alive)
        return alive

    def _glean(self, alive: list[Hypothesis]) -> list[Hypothesis]:
        """Compare each hypothesis where both sides were read already: that costs nothing."""
        windows = self._candidates(_GLEANED)
        if not windows.numel() or not bool(self.evidence.plain.touched.any()):
            return alive
        predictions = Predictions(self.evidence.frame, self.evidence.addresses(windows))
        kept: list[Hypothesis] = []
        for hypothesis in alive:
            predicted = predictions.of(hypothesis)
            free = (predicted >= 0).all(1) & self.evidence.plain.known(predicted.clamp(min=0)).all(1)
            places = free.nonzero().flatten()[:_FREE_PLACES].tolist()
            if all(self.evidence.compare(hypothesis, self._live(windows[at]), predicted[at]) for at in places):
                kept.append(hypothesis)
        return kept

    def confirm(self, group: Group, places: int = _RANDOM_WINDOWS) -> bool:
        """Compare one explanation at random places of the whole tensor; whether it holds at all of them."""
        windows = self._random_windows(3 * _RANDOM_WINDOWS)
        predicted = Predictions(self.evidence.frame, self.evidence.addresses(windows)).of(group[0])
        done = 0
        for window, positions in zip(windows, predicted, strict=True):
            if done == places:
                break
            if self._left(0) <= 0:
                # nothing spoke against it; did anything speak for it?
                return self.evidence.tallies.get(group[0], _NOTHING).good_places >= _ENOUGH
            if not bool((positions >= 0).any()):
                continue
            done += 1
            if not self.evidence.compare(group[0], self._live(window), positions):
                return False
        return done > 0

    def score(self, hypotheses: list[Hypothesis]) -> None:
        """Compare hypotheses at the same random places, whatever the outcome: how near does each come?"""
        windows = self._random_windows(_RANDOM_WINDOWS // 2)
        predictions = Predictions(self.evidence.frame, self.evidence.addresses(windows))
        predicted = [predictions.of(hypothesis) for hypothesis in hypotheses]
        for number, window in enumerate(windows):
            if self._left(len(hypotheses) * PAGE) <= 0:
                return
            live = self._live(window)
            for hypothesis, positions in zip(hypotheses, predicted, strict=True):
                self.evidence.compare(hypothesis, live, positions[number])

    def settle(self, groups: list[Group]) -> list[Group]:
        """Read just where explanations differ, however rare that is; return those that are left."""
        kept = list(groups)
        for other in groups[1:]:
            if not kept or kept[0] is other:
                continue
            kept = self._settle(kept, kept[0], other)
        return kept

    def strongest(self, groups: list[Group]) -> list[Group]:
        """Drop explanations that say what another one says, of fewer places (the rest they take for pads)."""
        predictions = Predictions(self.evidence.frame, self._everywhere())
        predicted = [predictions.of(group[0]) for group in groups]
        return [
            group
            for group, mine in zip(groups, predicted, strict=True)
            if not any(_says_more(theirs, mine) for theirs in predicted)
        ]

    def _settle(self, kept: list[Group], one: Group, other: Group) -> list[Group]:
        addresses = self._everywhere()
        predictions = Predictions(self.evidence.frame, addresses)
        mine, theirs = predictions.of(one[0]), predictions.of(other[0])
        differ = (mine != theirs) & (theirs >= 0)
        both = differ & (mine >= 0)
        places = addresses[both if bool(both.any()) else differ]
        if not places.numel():
            return kept
        drawn = places[torch.randint(0, places.numel(), (_PLACES_TO_SETTLE,), generator=self.random)]
        for window in torch.div(drawn, WINDOW, rounding_mode="floor") * WINDOW:
            if self._left(0) <= 0:
                break
            window = window.clamp(max=max(self.evidence.frame.nbytes - WINDOW, 0))
            here = Predictions(self.evidence.frame, self.evidence.addresses(window.unsqueeze(0)))
            live = self._live(window)
            wrong = [group for group in (one, other) if not self.evidence.compare(group[0], live, here.of(group[0])[0])]
            if wrong:
                return [group for group in kept if group not in wrong]
        return kept

    def groups(self, hypotheses: list[Hypothesis]) -> list[Group]:
        """Merge what predicts the same everywhere: exact on small tensors, at 24,576 places of large ones."""
        predictions = Predictions(self.evidence.frame, self._everywhere())
        merged: dict[int, list[tuple[torch.Tensor, list[Hypothesis]]]] = {}
        for hypothesis in hypotheses:
            predicted = predictions.of(hypothesis)
            bucket = merged.setdefault(int(predicted.sum()), [])
            for known, names in bucket:
                if torch.equal(known, predicted):
                    names.append(hypothesis)
                    break
            else:
                bucket.append((predicted, [hypothesis]))
        found = [tuple(names) for bucket in merged.values() for _, names in bucket]
        return sorted(found, key=lambda group: hypotheses.index(group[0]))

    def pad_fill(self, hypothesis: Hypothesis) -> int | Literal["mixed"] | None:
        """Return the byte that pads hold, ``mixed`` where they hold several, None where no pad was met."""
        addresses = torch.randint(0, self.evidence.frame.nbytes, (4096,), generator=self.random)
        pads = addresses[Predictions(self.evidence.frame, addresses).of(hypothesis) < 0][:_PADS]
        if not pads.numel() or self._left((_PADS + 1) * PAGE) <= 0:
            return None
        found = torch.unique(self.evidence.live.read(pads)).tolist()
        return int(found[0]) if len(found) == 1 else "mixed"

    def _everywhere(self) -> torch.Tensor:
        nbytes = self.evidence.frame.nbytes
        if nbytes <= _EXHAUSTIVE:
            return torch.arange(nbytes)
        addresses = torch.randint(0, nbytes, (_PLACES,), generator=self.random)
        return torch.cat([addresses, torch.arange(4096), torch.arange(nbytes - 4096, nbytes)])

    def _left(self, reserve: int) -> int:
        # a window may touch a page for each of its bytes, on either side
        return self.most_bytes - reserve - (WINDOW + 2) * PAGE - self.evidence.bytes_read

    def _live(self, window: torch.Tensor) -> torch.Tensor:
        return self.evidence.live.read(self.evidence.addresses(window.unsqueeze(0))[0])

    def _random_windows(self, count: int) -> torch.Tensor:
        last = max(self.evidence.frame.nbytes - WINDOW, 0) // WINDOW
        return torch.randint(0, last + 1, (count,), generator=self.random) * WINDOW

    def _look_around(self, pages: int) -> None:
        """Read a few pages of the live side: near the start of one expert (where predictions share pages), and one
        anywhere."""
        frame = self.evidence.frame
        if self._home is None:
            self._home = int(torch.randint(0, frame.live_experts, (1,), generator=self.random))
        size = frame.nbytes // frame.live_experts
        near = torch.randint(0, max(min(size, 64 * frame.live_k), 1), (pages - 1,), generator=self.random)
        anywhere = torch.randint(0, frame.nbytes, (1,), generator=self.random)
        for place in torch.cat([self._home * size + near, anywhere]).tolist():
            self._seen.append(self.evidence.live.window(min(place, frame.nbytes - 1)))

    def _discriminating(
        self, alive: list[Hypothesis], windows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the window at which most hypotheses differ per page read, and what they predict there."""
        if not windows.numel():
            return None
        predictions = Predictions(self.evidence.frame, self.evidence.addresses(windows))
        predicted = torch.stack([predictions.of(hypothesis) for hypothesis in alive])
        factors = torch.randint(1, 1 << 40, (predicted.shape[2],), generator=self.random)
        marks = (predicted * factors).sum(2)
        passed = [self.evidence.tallies.get(hypothesis, _NOTHING).good_places for hypothesis in alive]
        untried = torch.tensor([_DOUBT**places for places in passed], dtype=torch.float64)
        best, choice = 0.0, -1
        for number in range(len(windows)):
            # whoever says something of the window is contradicted, unless it is one of those who are right
            claimed = (predicted[:, number] >= 0).any(1)
            _, group, counts = torch.unique(marks[claimed, number], return_inverse=True, return_counts=True)
            contradicted = float((untried[claimed] * (1 - counts[group].double() / len(alive))).sum())
            if contradicted <= _LITTLE:
                continue
            positions = predicted[:, number]
            score = contradicted / (4 + self.evidence.plain.new_pages(torch.unique(positions[positions >= 0])))
            if score > best:
                best, choice = score, number
        if choice < 0:
            return None
        self._used.add(int(windows[choice]))
        return windows[choice], predicted[:, choice]

    def _candidates(self, most: int) -> torch.Tensor:
        """Return windows on live pages that were read already, those with the most different bytes first."""
        starts = torch.cat(
            [torch.arange(-(-first // WINDOW) * WINDOW, last - WINDOW + 1, WINDOW) for first, last in self._seen]
        )
        if not starts.numel():
            starts = torch.zeros(1, dtype=torch.int64)
        drawn = starts[torch.randint(0, starts.numel(), (4 * most,), generator=self.random)]
        fresh = torch.tensor([start for start in dict.fromkeys(drawn.tolist()) if start not in self._used])
        if not fresh.numel():
            return fresh
        content = self.evidence.live.read(self.evidence.addresses(fresh)).sort(dim=1).values
        different = (content[:, 1:] != content[:, :-1]).sum(1)
        return fresh[different.argsort(descending=True, stable=True)[:most]]

    def _test(
        self, alive: list[Hypothesis], window: torch.Tensor, predicted: torch.Tensor, reserve: int
    ) -> list[Hypothesis]:
        """Return whom the window leaves; few pages are paid for at a time: what they hold may tell of the rest."""
        live = self._live(window)
        kept: list[Hypothesis] = []
        stop = self._left(reserve) - _PAID_PAGES * PAGE
        for number, (hypothesis, positions) in enumerate(zip(alive, predicted, strict=True)):
            if self._left(reserve) <= max(stop, 0):
                return kept + alive[number:]
            if self.evidence.compare(hypothesis, live, positions, thrifty=True):
                kept.append(hypothesis)
        return kept


def _says_more(theirs: torch.Tensor, mine: torch.Tensor) -> bool:
    claimed = mine >= 0
    return bool((theirs[claimed] == mine[claimed]).all()) and bool((theirs[~claimed] >= 0).any())
