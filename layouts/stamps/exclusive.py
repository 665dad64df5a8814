"""Exclusive use of tensors among the threads of a process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, get_ident
from typing import Final

import torch

from preshuffle.layouts.stamps.memory_extents import MemoryExtent, extents_overlap, memory_extents_of


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    thread: int
    target: int
    extents: tuple[MemoryExtent, ...]

    def excludes(self, other: _Claim) -> bool:
        return self.thread != other.thread and (
            self.target == other.target or extents_overlap(self.extents, other.extents)
        )


@dataclass(slots=True)
class _Claims:
    changed: Condition = field(default_factory=Condition)
    active: list[_Claim] = field(default_factory=list)

    def reset(self) -> None:
        """Forget the claims of threads that a forked process does not have."""
        self.changed, self.active = Condition(), []


# Process-wide: memory is. Few claims are active at once.
_CLAIMS: Final = _Claims()
os.register_at_fork(after_in_child=_CLAIMS.reset)


@contextmanager
def exclusive(target: object, tensors: Callable[[], Iterable[torch.Tensor]]) -> Iterator[None]:
    """Lock a target and its bytes against other threads.

    Waits until no other thread works on them. A thread may enter again. Nothing is waited for while something
    else is claimed, unless by the same thread.

    Args:
        target: what the tensors stand in.
        tensors: returns them as they are when it is called: another thread may have replaced them.
    """
    claims = _CLAIMS
    with claims.changed:
        while True:
            extents = tuple(extent for tensor in tensors() for extent in memory_extents_of(tensor))
            claim = _Claim(get_ident(), id(target), extents)
            if not any(active.excludes(claim) for active in claims.active):
                break
            claims.changed.wait()
        claims.active.append(claim)
    try:
        yield
    finally:
        with claims.changed:
            claims.active.remove(claim)
            claims.changed.notify_all()
