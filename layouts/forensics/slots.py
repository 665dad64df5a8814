"""Slots of a rank's tensor behind its routed experts.

Engines fuse shared experts into the layer (one slot on every expert-parallel rank), or leave slots empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

import torch

from preshuffle.layouts.forensics.source import Bytes, SourceError

_GUESSED = (1, 2, 4, 8, 16, 32, 64)
_MOST_GUESSED = 8
_SAMPLES: Final = 14
_RUN: Final = 64


@dataclass(frozen=True, slots=True)
class HeldExperts:
    """Experts that a rank holds.

    Attributes:
        routed: routed experts, which come first.
        slots: slots behind them.
        ep: expert-parallel size that follows from it.
    """

    routed: int
    slots: int
    ep: int


def held_experts(experts: int, live: Bytes, ep: int | None, num_experts: int | None, bias: bool) -> HeldExperts | None:
    """Return the experts that a rank holds.

    None where they are the routed ones alone.

    Args:
        experts: routed experts of the checkpoint.
        live: the rank's tensor.
        ep: expert-parallel size; found out where it is not given.
        num_experts: of the whole layer, the slots of all ranks counted; None where it is not known.
        bias: whether the tensor is a bias, which has no K.

    Raises:
        SourceError: the tensor holds another number of experts than it must.
    """
    axis = len(live.shape) > 2 or (bias and len(live.shape) == 2)
    sizes = (ep,) if ep else tuple(size for size in _GUESSED if experts % size == 0)
    found: list[HeldExperts] = []
    for size in sizes:
        told = num_experts // size if num_experts is not None and num_experts % size == 0 else None
        if num_experts is not None and told is None:
            continue
        held = live.shape[0] if axis else told
        if held is None or experts % size or (told is not None and held != told):
            continue
        slots = held - experts // size
        if slots == 0 and not ep:  # a rank's routed experts alone: nothing is left to guess
            return None
        if slots > 0 and (ep or told or slots <= _MOST_GUESSED):
            found.append(HeldExperts(experts // size, slots, size))
    if found:
        return min(found, key=lambda one: one.slots)
    if axis and ep and num_experts is not None and live.shape[0] * ep != num_experts:
        raise SourceError(
            f"{live.name} holds {live.shape[0]} experts; at ep {ep} and {num_experts} experts in all they would be "
            f"{num_experts / ep:g}"
        )
    return None


class ExpertBytes(Bytes):
    """Bytes of neighbouring experts of a tensor.

    Attributes:
        count: how many experts.
    """

    def __init__(self, source: Bytes, first: int, count: int, held: int) -> None:
        """Take ``count`` experts of the ``held`` ones from the first on.

        Raises:
            SourceError: the tensor does not divide between its experts.
        """
        if source.shape[0] == held:
            shape = (count, *source.shape[1:])
        elif source.shape[0] % held == 0:
            shape = (source.shape[0] // held * count, *source.shape[1:])
        else:
            raise SourceError(f"{source.name}: {source.shape[0]} rows do not divide between {held} experts")
        self._source, self._start = source, source.nbytes // held * first
        self._before = source.bytes_read
        super().__init__(source.name, torch.empty(0, dtype=torch.uint8), shape, source.dtype, offset=None)
        self.count, self.nbytes = count, source.nbytes // held * count

    @property
    def bytes_read(self) -> int:
        """Bytes read of them so far."""
        return self._source.bytes_read - self._before

    def known(self, positions: torch.Tensor) -> torch.Tensor:
        """Return which positions lie on pages already read."""
        return self._source.known(positions + self._start)

    def read(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the bytes at positions."""
        return self._source.read(positions + self._start)

    def window(self, position: int) -> tuple[int, int]:
        """Return the byte range readable at no more cost."""
        first, last = self._source.window(position + self._start)
        return max(first - self._start, 0), min(last - self._start, self.nbytes)


def as_one_expert(source: Bytes, bias: bool) -> Bytes:
    """Return a shared expert's tensor with an axis for experts."""
    if len(source.shape) > 2 or (bias and len(source.shape) == 2):
        return source
    view = ExpertBytes(source, 0, 1, 1)
    view.shape = (1, *source.shape)
    return view


def only_byte(source: Bytes, seed: int) -> int | None:
    """Return the single value of a source's sampled bytes, or None."""
    random = Random(seed)
    run = torch.arange(min(_RUN, source.nbytes))
    last = max(source.nbytes - _RUN, 0)
    starts = [0, last, *(random.randint(0, last) for _ in range(_SAMPLES if last else 0))]
    found = torch.unique(torch.cat([source.read(start + run) for start in starts])).tolist()
    return int(found[0]) if len(found) == 1 else None
