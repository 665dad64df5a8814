"""Explanations that hold, what was compared for them, and how likely that is by chance."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10

import torch

from preshuffle.layouts.forensics.hypotheses import Hypothesis

Group = tuple[Hypothesis, ...]
"""Hypotheses that no position tells apart: one explanation with several names."""


@dataclass(frozen=True, slots=True)
class Match:
    """An explanation that holds wherever it was confirmed.

    Attributes:
        group: the explanation's names.
        compared: live bytes that are as it says, pads apart.
        places: in how many windows.
        chance: log10 of the probability that as many bytes, drawn from those that were seen, agree by accident.
    """

    group: Group
    compared: int
    places: int
    chance: float


@dataclass(slots=True)
class Seen:
    """A compared window: its live bytes, and which of them each hypothesis claims (none where it was not compared)."""

    found: torch.Tensor
    claimed: torch.Tensor


def distinct(predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distinct rows, in the order in which they first stand, and which of them each row is."""
    place: dict[tuple[int, ...], int] = {}
    which = [place.setdefault(tuple(row), len(place)) for row in predicted.tolist()]
    return torch.tensor(list(place), dtype=torch.int64).view(len(place), -1), torch.tensor(which)


def says_more(theirs: torch.Tensor, mine: torch.Tensor) -> bool:
    """Say whether one prediction says all that another does, and something of bytes that the other leaves open."""
    claimed = mine >= 0
    return bool((theirs[claimed] == mine[claimed]).all()) and bool((theirs[~claimed] >= 0).any())


def weight(match: Match, others: int) -> float:
    """Return log10 of the chance that one of so many hypotheses holds by accident as this one does."""
    return min(0.0, match.chance + log10(max(others, 1)))
