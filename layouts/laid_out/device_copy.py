"""Copies of a file's tensors to a device, overlapped with reading them."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
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

Extent = tuple[int, int]
"""First byte of a tensor in its file, and number of its bytes."""


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
        self._ahead: _Transfer | None = None

    def read_ahead(self, path: Path, extents: Sequence[Extent]) -> None:
        """Begin to read what is copied next, as far as buffers go.

        Args:
            path: the file; where it cannot be read, ``fill`` says so.
            extents: first byte and number of bytes of each tensor.
        """
        self._drop_ahead()
        with suppress(OSError):
            self._ahead = self._begin(path, extents)
            self._ahead.start(self._start(), self._count, waiting=False)

    def fill(self, path: Path, tensors: Sequence[tuple[torch.Tensor, int]]) -> None:
        """Fill tensors from a file; wait until all bytes have arrived.

        Args:
            path: the file.
            tensors: contiguous tensors of the device, and where the bytes of each begin in the file.

        Raises:
            LaidOutError: the file cannot be read, or ends before a tensor does.
        """
        flats = [as_bytes(tensor) for tensor, _ in tensors]
        extents = [(begin, flat.numel()) for flat, (_, begin) in zip(flats, tensors, strict=True)]
        try:
            transfer = self._begun(path, extents)
            try:
                self._send(transfer, flats)
            finally:
                transfer.close()
        except OSError as error:
            raise LaidOutError(f"{path}: cannot be read: {error.strerror}") from None
        except EOFError:
            raise LaidOutError(f"{path}: ends before its tensors do: verify it") from None

    def _begun(self, path: Path, extents: Sequence[Extent]) -> _Transfer:
        """Return what was read ahead, if it is this; else begin."""
        ahead = self._ahead
        if ahead is not None and ahead.source == (path, tuple(extents)):
            self._ahead = None
            return ahead
        self._drop_ahead()
        return self._begin(path, extents)

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _begin(self, path: Path, extents: Sequence[Extent]) -> _Transfer:
        self._start()
        return _Transfer(path, extents, self._buffers)

    def _send(self, transfer: _Transfer, flats: Sequence[torch.Tensor]) -> None:
        if self._stream is not None:  # the tensors' memory may still be in use by what was freed there
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        transfer.start(self._start(), self._count, waiting=True)
        try:
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                transfer.send(flats)
        finally:
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


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Some bytes of a file, and where they go.

    Attributes:
        begin: of the piece, in the file.
        tensor: number of the tensor that gets it.
        first: of the piece, in the tensor.
        size: its bytes.
    """

    begin: int
    tensor: int
    first: int
    size: int


def _pieces_of(extents: Iterable[Extent]) -> Iterator[_Piece]:
    """Yield pieces of tensors, small ones first."""
    number = 0
    for tensor, (begin, nbytes) in enumerate(extents):
        first = 0
        while first < nbytes:
            size = min(_FIRST << (number // 8), _PIECE, nbytes - first)
            yield _Piece(begin + first, tensor, first, size)
            first, number = first + size, number + 1


class _Buffer:
    """Memory of one piece, which a GPU copies from without waiting."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream
        self._memory = torch.empty(_PIECE, dtype=torch.uint8, pin_memory=stream is not None)
        self._sent = torch.cuda.Event() if stream is not None else None
        self._view = memoryview(self._memory.numpy().data)

    def read(self, handle: int, piece: _Piece) -> None:
        """Read a piece from an open file.

        Raises:
            EOFError: the file ends before.
        """
        view, begin = self._view[: piece.size], piece.begin
        while view:
            read = os.preadv(handle, [view], begin)
            if not read:
                raise EOFError
            view, begin = view[read:], begin + read

    def send(self, piece: _Piece, flat: torch.Tensor) -> None:
        """Start copying what was read to its place in a tensor's bytes."""
        target = flat[piece.first : piece.first + piece.size]
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
    """Pieces on their way from a file to a device.

    Attributes:
        source: the file, and where in it the tensors are.
    """

    def __init__(self, path: Path, extents: Sequence[Extent], buffers: Iterable[_Buffer]) -> None:
        """Open the file.

        Args:
            path: the file.
            extents: first byte and number of bytes of each tensor.
            buffers: which nothing else uses.

        Raises:
            OSError: it cannot be opened.
        """
        self.source = path, tuple(extents)
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._handle)
        self._pieces = deque(_pieces_of(extents))
        self._count = len(self._pieces)
        self._readers: list[Future[None]] = []
        self._free: SimpleQueue[_Buffer | None] = SimpleQueue()
        self._read: SimpleQueue[tuple[_Buffer, _Piece] | BaseException] = SimpleQueue()
        self._flight: deque[_Buffer] = deque()
        for buffer in buffers:
            self._free.put(buffer)

    def start(self, threads: ThreadPoolExecutor, count: int, *, waiting: bool) -> None:
        """Let so many threads read pieces, in order, until none is left.

        Args:
            threads: that read.
            count: how many of them.
            waiting: whether they wait for buffers that are in use, which ``send`` gives back; else they end there.
        """
        self._readers += [threads.submit(self._read_pieces, waiting) for _ in range(min(count, len(self._pieces)))]

    def _read_pieces(self, waiting: bool) -> None:
        try:
            while self._pieces:
                buffer = self._free.get(block=waiting)
                if buffer is None:
                    return
                try:
                    piece = self._pieces.popleft()
                except IndexError:
                    self._free.put(buffer)
                    return
                buffer.read(self._handle, piece)
                self._read.put((buffer, piece))
        except Empty:
            return
        except BaseException as error:
            self._read.put(error)

    def close(self) -> None:
        """Let readers finish what they are at, begin nothing more, and close the file."""
        self._pieces.clear()
        for _ in self._readers:
            self._free.put(None)
        wait(self._readers)
        self._close()

    def send(self, flats: Sequence[torch.Tensor]) -> None:
        """Send all pieces as they are read.

        Args:
            flats: each tensor's bytes.

        Raises:
            OSError, EOFError: a piece could not be read.
        """
        for _ in range(self._count):
            found = self._next()
            if isinstance(found, BaseException):
                raise found
            buffer, piece = found
            buffer.send(piece, flats[piece.tensor])
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
