"""What was compared, and how likely so good a match would be by chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log10

import torch

from preshuffle.layouts.identify_family import Frame, Hypothesis, Step, source
from preshuffle.layouts.identify_source import Bytes

WINDOW = 16
"""Live bytes that are compared together: one unit of most layouts, so that they lie on one page of the plain side."""
_SMOOTH = 0.5


@dataclass(slots=True)
class Tally:
    """Comparisons of one hypothesis.

    Attributes:
        compared: bytes.
        matched: of them.
        places: windows.
        chance: log10 of the probability that random bytes with the seen frequencies match as well.
    """

    compared: int = 0
    matched: int = 0
    places: int = 0
    good_places: int = 0
    chance: float = 0.0


@dataclass(slots=True)
class Evidence:
    """Both sides, what was read of them, and every hypothesis's tally.

    Attributes:
        histogram: how often each byte value was seen on the plain side.
    """

    frame: Frame
    plain: Bytes
    live: Bytes
    tallies: dict[Hypothesis, Tally] = field(default_factory=dict)
    histogram: torch.Tensor = field(default_factory=lambda: torch.zeros(256, dtype=torch.float64))

    @property
    def bytes_read(self) -> int:
        """Bytes read of both sides."""
        return self.plain.bytes_read + self.live.bytes_read

    def addresses(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the live addresses of windows, ``[windows, 16]``."""
        return windows.unsqueeze(1) + torch.arange(min(WINDOW, self.frame.nbytes))

    def compare(
        self, hypothesis: Hypothesis, live: torch.Tensor, predicted: torch.Tensor, thrifty: bool = False
    ) -> bool:
        """Compare one window of live bytes with the plain ones that a hypothesis predicts; pads are not compared.

        Args:
            hypothesis: who predicts.
            live: the window's bytes.
            predicted: plain positions, -1 for pads.
            thrifty: read no further where what was read already contradicts it.

        Returns:
            Whether nothing speaks against the hypothesis.
        """
        claimed = predicted >= 0
        if not bool(claimed.any()):
            return True
        found, places = live[claimed], predicted[claimed]
        known = self.plain.known(places)
        if thrifty and bool(known.any()) and not bool(known.all()):
            # a contradiction on pages that were read already saves the others
            if not bool((found[known] == self.plain.read(places[known])).all()):
                found, places = found[known], places[known]
        wanted = self.plain.read(places)
        self.histogram += torch.bincount(wanted.long(), minlength=256)
        matched = int((found == wanted).sum())
        tally = self.tallies.setdefault(hypothesis, Tally())
        tally.compared += wanted.numel()
        tally.matched += matched
        tally.places += 1
        if matched < wanted.numel():
            return False
        tally.good_places += 1
        frequency = (self.histogram + _SMOOTH) / (self.histogram.sum() + 256 * _SMOOTH)
        if bool((wanted == wanted[0]).all()):  # a run of equal bytes says no more than one
            wanted = wanted[:1]
        tally.chance += float(frequency[wanted.long()].log10().sum())
        return True

    def weight(self, hypothesis: Hypothesis, others: int) -> float:
        """Return log10 of the chance that one of so many hypotheses matches by accident as well as this one."""
        tally = self.tallies.get(hypothesis)
        return 0.0 if tally is None else min(0.0, tally.chance + log10(max(others, 1)))


class Predictions:
    """Predicted plain positions of many hypotheses at the same addresses; what layouts share is computed once."""

    def __init__(self, frame: Frame, addresses: torch.Tensor) -> None:
        """Fix the live addresses."""
        self._frame, self._addresses = frame, addresses
        self._sources: dict[tuple[Step, ...], torch.Tensor] = {(): addresses}

    def of(self, hypothesis: Hypothesis) -> torch.Tensor:
        """Return a hypothesis's plain positions, shaped like the addresses."""
        return hypothesis.predict(self._frame, self._source(hypothesis.steps))

    def _source(self, steps: tuple[Step, ...]) -> torch.Tensor:
        if steps not in self._sources:
            # live = last(…first(plain)): a live address goes back through the last layout first
            self._sources[steps] = self._walk(steps)
        return self._sources[steps]

    def _walk(self, steps: tuple[Step, ...]) -> torch.Tensor:
        position = self._addresses
        for step in reversed(steps):
            position = source(step, self._frame, position)
        return position
