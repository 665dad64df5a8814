"""Testing hypotheses against bytes: reading where survivors contradict each other, until one explanation is left."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from preshuffle.layouts.identify_evidence import WINDOW, Evidence, Predictions
from preshuffle.layouts.identify_family import Hypothesis
from preshuffle.layouts.identify_source import PAGE

_CANDIDATES = 48
_ROUNDS = 64
_PATIENCE = 6
_EXHAUSTIVE = 1 << 18
_PLACES = 1 << 15
_RANDOM_WINDOWS = 40

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

    def narrow(self, hypotheses: list[Hypothesis], reserve: int) -> list[Hypothesis]:
        """Drop what the bytes contradict, reading where most of the rest disagree; ``reserve`` bytes are left unread."""
        alive, idle = hypotheses, 0
        for number in range(_ROUNDS):
            if len(alive) < 2 or idle >= _PATIENCE:
                break
            if idle or not number:
                self._look_around(3)
            choice = self._discriminating(alive)
            if choice is None:
                idle += 1
                continue
            kept = self._test(alive, *choice, reserve)
            if kept is None:
                self.cut_short = len(alive)
                break
            idle = 0 if len(kept) < len(alive) else idle + 1
            alive = kept
        return alive

    def confirm(self, group: Group) -> bool:
        """Compare one explanation at random places of the whole tensor; whether it holds at all of them."""
        windows = self._random_windows(3 * _RANDOM_WINDOWS)
        predicted = Predictions(self.evidence.frame, self.evidence.addresses(windows)).of(group[0])
        done = 0
        for window, positions in zip(windows, predicted, strict=True):
            if done == _RANDOM_WINDOWS or self._left(4 * PAGE) <= 0:
                break
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
            if self._left((len(hypotheses) + 2) * PAGE) <= 0:
                return
            live = self._live(window)
            for hypothesis, positions in zip(hypotheses, predicted, strict=True):
                self.evidence.compare(hypothesis, live, positions[number])

    def groups(self, hypotheses: list[Hypothesis]) -> list[Group]:
        """Merge what predicts the same everywhere: exact on small tensors, at 32,768 places of large ones."""
        nbytes = self.evidence.frame.nbytes
        if nbytes <= _EXHAUSTIVE:
            addresses = torch.arange(nbytes)
        else:
            addresses = torch.randint(0, nbytes, (_PLACES,), generator=self.random)
            addresses = torch.cat([addresses, torch.arange(4096), torch.arange(nbytes - 4096, nbytes)])
        predictions = Predictions(self.evidence.frame, addresses)
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

    def _left(self, reserve: int) -> int:
        return self.most_bytes - reserve - self.evidence.bytes_read

    def _live(self, window: torch.Tensor) -> torch.Tensor:
        return self.evidence.live.read(self.evidence.addresses(window.unsqueeze(0))[0])

    def _random_windows(self, count: int) -> torch.Tensor:
        last = max(self.evidence.frame.nbytes - WINDOW, 0) // WINDOW
        return torch.randint(0, last + 1, (count,), generator=self.random) * WINDOW

    def _look_around(self, pages: int) -> None:
        """Read a few pages of the live side: near the start of an expert (where predictions share pages) and anywhere."""
        frame = self.evidence.frame
        expert = int(torch.randint(0, frame.live_experts, (1,), generator=self.random))
        size = frame.nbytes // frame.live_experts
        near = torch.randint(0, max(min(size, 64 * frame.live_k), 1), (pages - 1,), generator=self.random)
        anywhere = torch.randint(0, frame.nbytes, (1,), generator=self.random)
        for place in torch.cat([expert * size + near, anywhere]).tolist():
            self._seen.append(self.evidence.live.window(min(place, frame.nbytes - 1)))

    @property
    def _seen(self) -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = self.__dict__.setdefault("seen", [])
        return seen
