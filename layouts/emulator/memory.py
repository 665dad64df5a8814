"""Global memory of a launch: named buffers with guards, sparse where large.

A buffer lies at an address of its own, far from all others, so that an address names its buffer. What no buffer owns
cannot be read or written. Kernels fetch tiles ahead of use and so read beyond a buffer's last tile: a buffer has
``readable_after`` bytes behind it that read as `POISON`, which shows in the numbers where they are used.
"""

import mmap
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.errors import MemoryAccessError

FIRST_ADDRESS = 1 << 36
ALIGNMENT = 1 << 32
POISON = 0x5B
PAGE = 4096

Addresses = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Named range of addresses and its bytes."""

    name: str
    address: int
    size: int
    data: NDArray[np.uint8]

    @property
    def readable_end(self) -> int:
        """First address behind the buffer that cannot be read."""
        return self.address + len(self.data)


class GlobalMemory:
    """Buffers by address; every access is checked."""

    def __init__(self) -> None:
        """Make a memory without buffers."""
        self._buffers: list[Buffer] = []
        self._starts: list[int] = []
        self._by_name: dict[str, Buffer] = {}

    def add(self, name: str, content: NDArray[np.generic], readable_after: int = 0) -> int:
        """Add a buffer with an array's bytes; return its address."""
        raw = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
        self.reserve(name, len(raw), readable_after)
        self.bytes_of(name)[:] = raw
        return self.address(name)

    def reserve(self, name: str, size: int, readable_after: int = 0) -> int:
        """Add a sparse buffer of zeros; return its address.

        It takes memory only where it is touched.
        """
        readable = -(-(size + readable_after) // 4) * 4  # whole words
        whole = -(-max(readable, 1) // PAGE) * PAGE
        mapped = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        data = np.frombuffer(mapped, np.uint8)[:readable]
        data[size:] = POISON
        last = self._buffers[-1].readable_end if self._buffers else FIRST_ADDRESS - ALIGNMENT
        buffer = Buffer(name, (last // ALIGNMENT + 1) * ALIGNMENT, size, data)
        self._buffers.append(buffer)
        self._starts.append(buffer.address)
        self._by_name[name] = buffer
        return buffer.address

    def address(self, name: str) -> int:
        """Return a buffer's address."""
        return self._by_name[name].address

    def bytes_of(self, name: str) -> NDArray[np.uint8]:
        """Return a buffer's bytes, as a view that can be written."""
        buffer = self._by_name[name]
        return buffer.data[: buffer.size]

    def read(self, addresses: Addresses, size: int) -> NDArray[np.uint8]:
        """Read ``size`` bytes at each address; shape (addresses, size)."""
        out = np.empty((len(addresses), size), np.uint8)
        for buffer, chosen in self._by_buffer(addresses):
            where = addresses[chosen] - buffer.address
            if where.max() + size > len(buffer.data):
                raise self._not_owned("read", int(addresses[chosen].max()), size)
            out[chosen] = _gather(buffer.data, where, size)
        return out

    def write(self, addresses: Addresses, raw: NDArray[np.uint8]) -> None:
        """Write a row of bytes at each address.

        Of rows for one address the last one stays.
        """
        size = raw.shape[1]
        for buffer, chosen in self._by_buffer(addresses):
            self._check_writable(buffer, addresses[chosen], size)
            where = addresses[chosen] - buffer.address
            if size == 4 and not (where & 3).any():
                _words(buffer.data)[where >> 2] = np.ascontiguousarray(raw[chosen]).view(np.uint32)[:, 0]
            else:
                buffer.data[where[:, None] + np.arange(size)] = raw[chosen]

    def words_to_change(self, addresses: Addresses) -> list[tuple[NDArray[np.uint32], Addresses, NDArray[np.intp]]]:
        """Return the words of each buffer that an atomic changes.

        With indices into them, and which addresses they are.
        """
        found = []
        for buffer, chosen in self._by_buffer(addresses):
            self._check_writable(buffer, addresses[chosen], 4)
            where = addresses[chosen] - buffer.address
            if (where & 3).any():
                raise MemoryAccessError(f"an atomic at {int(addresses[chosen][0]):#x}, which is not a multiple of 4")
            found.append((_words(buffer.data), where >> 2, chosen))
        return found

    def _by_buffer(self, addresses: Addresses) -> list[tuple[Buffer, NDArray[np.intp]]]:
        if not len(addresses):
            return []
        first, last = self._owner(int(addresses.min())), self._owner(int(addresses.max()))
        if first is last:
            return [(first, np.arange(len(addresses)))]
        owners = np.searchsorted(np.array(self._starts), addresses, side="right") - 1
        return [(self._buffers[owner], np.flatnonzero(owners == owner)) for owner in np.unique(owners)]

    def _owner(self, address: int) -> Buffer:
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._buffers[index].readable_end:
            raise self._not_owned("access", address, 1)
        return self._buffers[index]

    def _check_writable(self, buffer: Buffer, addresses: Addresses, size: int) -> None:
        if int(addresses.max()) + size > buffer.address + buffer.size:
            raise self._not_owned("write", int(addresses.max()), size)

    def _not_owned(self, what: str, address: int, size: int) -> MemoryAccessError:
        index = bisect_right(self._starts, address) - 1
        near = "below every buffer" if index < 0 else self._beyond(self._buffers[index], address)
        return MemoryAccessError(f"{what} of {size} bytes at {address:#x}, which no buffer owns: {near}")

    @staticmethod
    def _beyond(buffer: Buffer, address: int) -> str:
        return f"{address - buffer.address:,} bytes from the start of {buffer.name}, which has {buffer.size:,}"


def _words(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return data[: len(data) // 4 * 4].view(np.uint32)


def _gather(data: NDArray[np.uint8], where: Addresses, size: int) -> NDArray[np.uint8]:
    found: NDArray[np.uint8]
    if size % 4 or (where & 3).any():
        found = data[where[:, None] + np.arange(size)]
    else:
        found = _words(data)[(where >> 2)[:, None] + np.arange(size // 4)].view(np.uint8)
    return found
