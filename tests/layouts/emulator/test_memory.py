"""Global memory: guards, sparse buffers, poison."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tinygrad", reason="tinygrad is not installed: pip install '.[proofs]'")

from preshuffle.layouts.emulator import GlobalMemory, MemoryAccessError


def at(*addresses: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(addresses, np.int64)


def test_what_was_written_is_read() -> None:
    memory = GlobalMemory()
    first = memory.add("a", np.arange(64, dtype=np.uint8))
    second = memory.add("b", np.arange(100, 164, dtype=np.uint8))
    assert memory.read(at(first + 4, second + 8), 4).tolist() == [[4, 5, 6, 7], [108, 109, 110, 111]]
    assert memory.read(at(first + 3), 2).tolist() == [[3, 4]]
    memory.write(at(second, first), np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8))
    assert memory.bytes_of("a")[:4].tolist() == [5, 6, 7, 8]
    assert memory.bytes_of("b")[:4].tolist() == [1, 2, 3, 4]


def test_reading_beyond_a_buffer_names_the_address() -> None:
    memory = GlobalMemory()
    start = memory.add("weights", np.zeros(64, np.uint8))
    with pytest.raises(
        MemoryAccessError, match=rf"read of 16 bytes at {start + 56:#x}.*56 bytes from the start of weights"
    ):
        memory.read(at(start, start + 56), 16)
    with pytest.raises(MemoryAccessError, match=rf"{start - 4:#x}.*below every buffer"):
        memory.read(at(start - 4), 4)


def test_writing_beyond_a_buffer_is_an_error_even_where_reading_is_allowed() -> None:
    memory = GlobalMemory()
    start = memory.add("out", np.zeros(64, np.uint8), readable_after=64)
    assert set(memory.read(at(start + 64), 4).reshape(-1).tolist()) == {0x5B}
    with pytest.raises(MemoryAccessError, match="write of 4 bytes"):
        memory.write(at(start + 64), np.zeros((1, 4), np.uint8))


def test_a_buffer_of_many_gibibytes_takes_memory_only_where_it_is_touched() -> None:
    memory = GlobalMemory()
    size = 5 << 30
    start = memory.reserve("large", size)
    memory.write(at(start + size - 4), np.array([[1, 2, 3, 4]], np.uint8))
    assert memory.read(at(start + size - 4), 4).tolist() == [[1, 2, 3, 4]]
    assert memory.read(at(start + (3 << 30)), 4).tolist() == [[0, 0, 0, 0]]
