"""Exclusive use of tensors among threads, and of mapped files among processes."""

from __future__ import annotations

import fcntl
import os
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Condition, get_ident
from typing import Final

import torch

from preshuffle.layouts.stamps.mapped import Mapping, mapping_of
from preshuffle.layouts.stamps.memory_extents import MemoryExtent, extent_of, extents_overlap, memory_extents_of


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
    files: set[int] = field(default_factory=set)

    def reset(self) -> None:
        """Forget the claims of threads that a forked process does not have."""
        for handle in self.files:
            with suppress(OSError):
                os.close(handle)
        self.changed, self.active, self.files = Condition(), [], set()


# Process-wide: memory is. Few claims are active at once.
_CLAIMS: Final = _Claims()
os.register_at_fork(after_in_child=_CLAIMS.reset)


@contextmanager
def exclusive(target: object, tensors: Callable[[], Iterable[torch.Tensor]]) -> Iterator[None]:
    """Lock a target and its bytes against other threads.

    Waits until no other thread works on them, and no other process on the files that are mapped there. A thread may
    enter again. No thread is waited for while something else is claimed, unless by the same thread.

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
        outermost = all(active.thread != claim.thread for active in claims.active)
        claims.active.append(claim)
    try:
        with _locked_files(tensors() if outermost else ()):
            yield
    finally:
        with claims.changed:
            claims.active.remove(claim)
            claims.changed.notify_all()


@contextmanager
def _locked_files(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Lock byte ranges of mapped files against other processes.

    Always in the order of inodes and bytes, so that two processes never wait for each other. The locks go with the
    opened file: closing another descriptor of it, as records are read, does not release them, and the kernel does
    where the process is killed.
    """
    ranges: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    found: dict[tuple[int, int], Mapping] = {}
    for tensor in tensors:
        mapping = mapping_of(tensor)
        if mapping is not None and mapping.shared and mapping.writable and tensor.numel():
            begin, end = extent_of(tensor)
            ranges[mapping.inode].append((mapping.offset + begin, end - begin))
            found[mapping.inode] = mapping
    handles: list[int] = []
    try:
        for inode in sorted(ranges):
            with suppress(OSError):  # a file that cannot be opened for writing, or a file system without such locks
                handles.append(os.open(found[inode].path, os.O_RDWR))
                _CLAIMS.files.add(handles[-1])
                for first, size in sorted(ranges[inode]):
                    _change_lock(handles[-1], fcntl.F_WRLCK, first, size)
        yield
    finally:
        for handle in handles:
            with suppress(OSError):  # by hand: a forked process may have the same file open
                _change_lock(handle, fcntl.F_UNLCK, 0, 0)
            _CLAIMS.files.discard(handle)
            os.close(handle)


def _change_lock(handle: int, kind: int, first: int, size: int) -> None:
    """Set or release a lock of an open file description; wait for others."""
    fcntl.fcntl(handle, fcntl.F_OFD_SETLKW, struct.pack("hhqqi4x", kind, os.SEEK_SET, first, size, 0))
