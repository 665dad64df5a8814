"""Explanations that hold, with their probability of chance agreement."""

from __future__ import annotations

from dataclasses import dataclass
from math import log10

import torch

from preshuffle.layouts.forensics.hypotheses import Hypothesis

Group = tuple[Hypothesis, ...]
"""Hypotheses that predict the same bytes everywhere: one explanation with several names."""


@dataclass(frozen=True, slots=True)
class Match:
    """Explanation that holds wherever it was tested.

    Attributes:
        group: the explanation's names.
        compared: live bytes that agree with it, pads left out.
        places: number of windows with such bytes.
        chance: log10 of the probability that as many bytes, drawn from those that were seen, agree by accident.
    """

    group: Group
    compared: int
    places: int
    chance: float


@dataclass(slots=True)
class ComparedWindow:
    """Window of live bytes, with the bytes that each hypothesis claimed.

    Nothing is claimed where a hypothesis was not compared.
    """

    found: torch.Tensor
    claimed: torch.Tensor


def match_of(number: int, hypothesis: Hypothesis, seen: list[ComparedWindow]) -> Match:
    """Sum up the windows that support a hypothesis.

    A window in which all bytes are equal counts as a single byte.
    """
    if not seen:
        return Match((hypothesis,), 0, 0, 0.0)
    found = torch.stack([one.found for one in seen]).long()
    claimed = torch.stack([one.claimed[number] for one in seen])
    counts = torch.bincount(found.flatten(), minlength=256).double()
    cost = torch.where(claimed, (counts / counts.sum()).log10()[found], 0.0).sum(1)
    sizes = claimed.sum(1)
    uniform = (found.masked_fill(~claimed, 256).amin(1) == found.masked_fill(~claimed, -1).amax(1)) & (sizes > 0)
    chance = torch.where(uniform, cost / sizes.clamp(min=1), cost).sum()
    return Match((hypothesis,), int(sizes.sum()), int((sizes > 0).sum()), float(chance))


def distinct_rows(predicted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return distinct rows in order of occurrence, and each row's index."""
    place: dict[tuple[int, ...], int] = {}
    which = [place.setdefault(tuple(row), len(place)) for row in predicted.tolist()]
    return torch.tensor(list(place), dtype=torch.int64).view(len(place), -1), torch.tensor(which)


def subsumes(other: torch.Tensor, one: torch.Tensor) -> bool:
    """Return whether one prediction extends another.

    It claims all that the other does, and bytes that the other leaves open besides.
    """
    claimed = one >= 0
    return bool((other[claimed] == one[claimed]).all()) and bool((other[~claimed] >= 0).any())


def corrected_chance(match: Match, others: int) -> float:
    """Return the chance of agreement corrected for all hypotheses.

    log10 of the probability that one of so many holds by accident as well as this one.
    """
    return min(0.0, match.chance + log10(max(others, 1)))
