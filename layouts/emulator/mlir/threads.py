"""Threads of several blocks in lock-step, their values and their memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.errors import MemoryAccessError
from preshuffle.layouts.emulator.memory import GlobalMemory
from preshuffle.layouts.emulator.mlir.types import LDS_SPACE, Array

LANES = 64
Mask = NDArray[np.bool_]
Addresses = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class BufferView:
    """Buffer pointer: start and size.

    What lies beyond reads as 0 and is not written.
    """

    start: NDArray[np.uint64]
    size: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Blocks to run: ids, sizes of grid and block.

    Each is (x, y, z).
    """

    ids: NDArray[np.uint32]
    blocks: tuple[int, int, int]
    threads: tuple[int, int, int]


class Threads:
    """State of the threads of some blocks.

    Attributes:
        count: of all blocks together.
        mask: threads that run the current operation; None: all.
        values: of the kernel, by number.
    """

    def __init__(self, arch: str, grid: Grid, lds: dict[str, int], lds_bytes: int, memory: GlobalMemory) -> None:
        """Start with empty local memory."""
        self.arch, self.grid, self.memory = arch, grid, memory
        self.per_block = int(np.prod(grid.threads))
        self.count = len(grid.ids) * self.per_block
        self.block = np.repeat(np.arange(len(grid.ids)), self.per_block)
        self.in_block = np.tile(np.arange(self.per_block, dtype=np.uint32), len(grid.ids))
        self.lane = self.in_block % np.uint32(LANES)
        self.first_lane = np.arange(self.count) - self.lane
        self.variables = lds
        self.lds_bytes = lds_bytes
        self.lds = np.zeros(max(1, len(grid.ids) * lds_bytes), np.uint8)
        self.lds_start = self.block * lds_bytes
        self.mask: Mask | None = None
        self.values: list[Any] = []

    @property
    def waves(self) -> int:
        """Waves of 64 threads."""
        return self.count // LANES

    def everyone(self, values: Array) -> Array:
        """Return a value with one row per thread."""
        return np.broadcast_to(values, (self.count, *values.shape[1:]))

    def active(self, allowed: Mask | None = None) -> NDArray[np.intp]:
        """Return the threads that run, of those that are allowed."""
        if allowed is None:
            return np.arange(self.count) if self.mask is None else np.flatnonzero(self.mask)
        allowed = np.broadcast_to(allowed, (self.count,))
        return np.flatnonzero(allowed if self.mask is None else allowed & self.mask)

    def first_active(self) -> NDArray[np.intp]:
        """Return for each thread the first active one of its wave."""
        if self.mask is None:
            return self.first_lane
        by_wave = self.mask.reshape(-1, LANES)
        return np.repeat(by_wave.argmax(1) + np.arange(len(by_wave)) * LANES, LANES)

    def read(self, space: int, addresses: Array, size: int, allowed: Mask | None = None) -> Bytes:
        """Read bytes at each thread's address, shape ``[threads, size]``.

        Zeros where a thread does not run or is not allowed.
        """
        chosen = self.active(allowed)
        where = self.everyone(addresses).view(np.int64)[chosen]
        if space == LDS_SPACE:
            found = self.lds[self._local(chosen, where, size)]
        else:
            found = self.memory.read(where, size)
        if len(chosen) == self.count:
            return found
        out = np.zeros((self.count, size), np.uint8)
        out[chosen] = found
        return out

    def write(self, space: int, addresses: Array, raw: Bytes, allowed: Mask | None = None) -> None:
        """Write bytes at each running thread's address."""
        chosen = self.active(allowed)
        if not len(chosen):
            return
        where = self.everyone(addresses).view(np.int64)[chosen]
        rows = np.ascontiguousarray(self.everyone(raw)[chosen])
        if space == LDS_SPACE:
            self.lds[self._local(chosen, where, rows.shape[1])] = rows
        else:
            self.memory.write(where, rows)

    def _local(self, chosen: NDArray[np.intp], where: Addresses, size: int) -> Addresses:
        if len(where) and (where.min() < 0 or where.max() + size > self.lds_bytes):
            raise MemoryAccessError(f"access to byte {int(where.max())} of {self.lds_bytes:,} of local memory")
        start = where + self.lds_start[chosen]
        return start[:, None] + np.arange(size)


def merge(old: Any, new: Any, mask: Mask) -> Any:
    """Return the new value for masked threads, else the old one."""
    if old is None:
        return new
    if isinstance(new, BufferView):
        return BufferView(merge(old.start, new.start, mask), merge(old.size, new.size, mask))
    if isinstance(new, list):
        return [merge(before, after, mask) for before, after in zip(old, new, strict=True)]
    return np.where(mask.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)
