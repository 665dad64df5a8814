"""Copies of a file's tensors to a device, overlapped with reading them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

import torch

from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.tensors import as_bytes

_MOST_THREADS: Final = 8
"""Threads that read: one takes 5 to 7 GB/s out of the page cache, and a few more fill memory's bandwidth."""
_PIECE: Final = 4 << 20
"""Bytes that are read and sent at once: buffers that stay in the processor's cache are read twice as fast."""
_FIRST: Final = 1 << 19
"""Bytes of the first pieces, so that the GPU soon has something to do; after every eight they are twice as large."""
_SPARE: Final = 4
"""Buffers on their way to the GPU while every thread reads into another one."""


class DeviceCopier:
    """Copies tensors of files to a device.

    Threads read pieces into pinned buffers. The caller's thread alone talks to the GPU: it sends what was read, on a
    stream of its own, and gives buffers back to the readers. To a device that is no GPU buffers are not pinned.
    """

    def __init__(self, device: torch.device) -> None:
        """Copy to a device.

        Threads and buffers are made at the first copy.
        """
        self._device = device
        self._threads: ThreadPoolExecutor | None = None
        self._buffers: list[_Buffer] = []
        self._stream: torch.cuda.Stream | None = None
        self._count = min(_MOST_THREADS, len(os.sched_getaffinity(0)))

    def fill(self, path: Path, tensors: Sequence[tuple[torch.Tensor, int]]) -> None:
        """Fill tensors from a file; wait until all bytes have arrived.

        Args:
            path: the file.
            tensors: contiguous tensors of the device, and where the bytes of each begin in the file.

        Raises:
            LaidOutError: the file cannot be read, or ends before a tensor does.
        """
        try:
            with closing(_File(os.open(path, os.O_RDONLY | os.O_CLOEXEC))) as file:
                self._copy(file, deque(_pieces_of(tensors)))
        except OSError as error:
            raise LaidOutError(f"{path}: cannot be read: {error.strerror}") from None
        except EOFError:
            raise LaidOutError(f"{path}: ends before its tensors do: verify it") from None

    def _copy(self, file: _File, pieces: deque[_Piece]) -> None:
        threads = self._start()
        if self._stream is not None:  # the tensors' memory may still be in use by what was freed there
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        count = len(pieces)
        transfer = _Transfer(file, pieces, self._buffers)
        readers = [threads.submit(transfer.read) for _ in range(min(self._count, count))]
        try:
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                transfer.send(count)
        finally:
            transfer.stop(len(readers))
            wait(readers)
            if self._stream is not None:
                self._stream.synchronize()

    def _start(self) -> ThreadPoolExecutor:
        """Return the threads; make buffers at the first call."""
        if self._threads is None:
            on_gpu = self._device.type == "cuda"
            self._stream = torch.cuda.Stream(self._device) if on_gpu else None
            self._buffers = [_Buffer(self._stream) for _ in range(self._count + _SPARE)]
            self._threads = ThreadPoolExecutor(self._count, "device-copy")
        return self._threads


@dataclass(slots=True, eq=False)
class _File:
    """Open file that is read at any place."""

    handle: int

    def read(self, begin: int, view: memoryview) -> None:
        """Fill a buffer.

        Raises:
            EOFError: the file ends before.
        """
        count = 0
        while count < len(view):
            read = os.preadv(self.handle, [view[count:]], begin + count)
            if not read:
                raise EOFError
            count += read

    def close(self) -> None:
        os.close(self.handle)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Some bytes of a file, and where they go.

    Attributes:
        begin: of the piece, in the file.
        flat: all bytes of the tensor on the device.
        first: of the piece, in the tensor.
        size: its bytes.
    """

    begin: int
    flat: torch.Tensor
    first: int
    size: int


def _pieces_of(tensors: Sequence[tuple[torch.Tensor, int]]) -> Iterator[_Piece]:
    """Yield pieces of tensors, small ones first."""
    number = 0
    for tensor, begin in tensors:
        flat, first = as_bytes(tensor), 0
        while first < flat.numel():
            size = min(_FIRST << (number // 8), _PIECE, flat.numel() - first)
            yield _Piece(begin + first, flat, first, size)
            first, number = first + size, number + 1


class _Buffer:
    """Memory of one piece, which a GPU copies from without waiting."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream
        self._memory = torch.empty(_PIECE, dtype=torch.uint8, pin_memory=stream is not None)
        self._sent = torch.cuda.Event() if stream is not None else None
        self._view = memoryview(self._memory.numpy().data)

    def read(self, file: _File, piece: _Piece) -> None:
        """Read a piece from the file."""
        file.read(piece.begin, self._view[: piece.size])

    def send(self, piece: _Piece) -> None:
        """Start copying what was read to its target."""
        target = piece.flat[piece.first : piece.first + piece.size]
        target.copy_(self._memory[: piece.size], non_blocking=True)
        if self._sent is not None and self._stream is not None:
            self._sent.record(self._stream)

    def has_left(self) -> bool:
        """Return whether what was sent has arrived."""
        return self._sent is None or self._sent.query()

    def wait(self) -> None:
        """Wait until what was sent has arrived."""
        if self._sent is not None:
            self._sent.synchronize()


class _Transfer:
    """Pieces on their way from a file to a device."""

    def __init__(self, file: _File, pieces: deque[_Piece], buffers: list[_Buffer]) -> None:
        self._file, self._pieces = file, pieces
        self._free: SimpleQueue[_Buffer | None] = SimpleQueue()
        self._read: SimpleQueue[tuple[_Buffer, _Piece] | BaseException] = SimpleQueue()
        self._flight: deque[_Buffer] = deque()
        for buffer in buffers:
            self._free.put(buffer)

    def read(self) -> None:
        """Read pieces, in order, until none is left."""
        try:
            while True:
                try:
                    piece = self._pieces.popleft()
                except IndexError:
                    return
                buffer = self._free.get()
                if buffer is None:
                    return
                buffer.read(self._file, piece)
                self._read.put((buffer, piece))
        except BaseException as error:
            self._read.put(error)

    def stop(self, readers: int) -> None:
        """Let readers finish what they are at, and begin nothing more."""
        self._pieces.clear()
        for _ in range(readers):
            self._free.put(None)

    def send(self, count: int) -> None:
        """Send so many pieces as they are read.

        Raises:
            OSError, EOFError: a piece could not be read.
        """
        for _ in range(count):
            found = self._next()
            if isinstance(found, BaseException):
                raise found
            buffer, piece = found
            buffer.send(piece)
            self._flight.append(buffer)

    def _next(self) -> tuple[_Buffer, _Piece] | BaseException:
        """Return what was read next; give buffers back meanwhile."""
        while True:
            while self._flight and self._flight[0].has_left():
                self._free.put(self._flight.popleft())
            try:
                return self._read.get_nowait()
            except Empty:
                if len(self._flight) < _SPARE:  # each reader has a buffer: one of them will be done
                    return self._read.get()
            self._flight[0].wait()
