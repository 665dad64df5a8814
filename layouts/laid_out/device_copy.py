"""Copies of a file's tensors to a device, overlapped with reading them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Final

import torch

from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.tensors import as_bytes

_MOST_THREADS: Final = 12
"""Threads that read: one takes 5 to 7 GB/s out of the page cache, a GPU 55, and memory has no room for many more."""
_BLOCK: Final = 32 << 20
"""Bytes that are sent at once: a GPU takes few large copies faster than many small ones."""
_FIRST: Final = 4 << 20
"""Bytes of the first block, so that the GPU soon has something to do; each is twice as large as the one before it."""
_BUFFERS: Final = 4
_PARTS: Final = 8
"""Parts of a block, read by different threads."""
_PAGE: Final = 4096


class DeviceCopier:
    """Copies tensors of files to a device.

    Threads read parts of a block into pinned memory; who reads the last part sends the block, on a stream of its own.
    Meanwhile the next blocks are read into other buffers. To a device that is no GPU buffers are not pinned.
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
                self._send(file, (_Piece(begin, as_bytes(tensor)) for tensor, begin in tensors))
        except OSError as error:
            raise LaidOutError(f"{path}: cannot be read: {error.strerror}") from None
        except EOFError:
            raise LaidOutError(f"{path}: ends before its tensors do: verify it") from None

    def _send(self, file: _File, pieces: Iterable[_Piece]) -> None:
        threads = self._start()
        if self._stream is not None:  # the tensors' memory may still be in use by what was freed there
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        transfer = _Transfer(file, self._buffers, self._stream, list(_blocks_of(pieces)))
        work = [threads.submit(transfer.run) for _ in range(min(self._count, len(transfer.parts)))]
        try:
            for one in work:
                one.result()
        finally:
            transfer.stop()
            wait(work)
            if self._stream is not None:
                self._stream.synchronize()

    def _start(self) -> ThreadPoolExecutor:
        """Return the threads; make buffers at the first call."""
        if self._threads is None:
            on_gpu = self._device.type == "cuda"
            self._stream = torch.cuda.Stream(self._device) if on_gpu else None
            self._buffers = [
                _Buffer(torch.empty(_BLOCK, dtype=torch.uint8, pin_memory=on_gpu)) for _ in range(_BUFFERS)
            ]
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


@dataclass(slots=True, eq=False)
class _Piece:
    """Some bytes of a file, and the flat bytes on the device that get them."""

    begin: int
    target: torch.Tensor

    def __len__(self) -> int:
        return self.target.numel()

    def cut(self, size: int) -> tuple[_Piece, _Piece]:
        """Return the first bytes, and the rest."""
        return _Piece(self.begin, self.target[:size]), _Piece(self.begin + size, self.target[size:])


@dataclass(slots=True, eq=False)
class _Block:
    """Pieces that are read into one buffer, one behind the other, and sent from it.

    Attributes:
        missing: parts that are not read yet.
        sent: set when its copy is on the stream.
    """

    pieces: list[_Piece] = field(default_factory=list)
    size: int = 0
    missing: int = 0
    sent: Event = field(default_factory=Event)

    def ranges(self) -> Iterator[range]:
        """Yield the parts of the buffer that threads read."""
        step = -(-self.size // (_PARTS * _PAGE)) * _PAGE
        return (range(first, min(first + step, self.size)) for first in range(0, self.size, step))

    def read(self, file: _File, view: memoryview, part: range) -> None:
        """Read a part into its place in the buffer."""
        place = 0
        for piece in self.pieces:
            first, past = max(part.start, place), min(part.stop, place + len(piece))
            if first < past:
                file.read(piece.begin + first - place, view[first:past])
            place += len(piece)


def _blocks_of(pieces: Iterable[_Piece]) -> Iterator[_Block]:
    """Yield blocks that hold all pieces, small ones first."""
    limit, block = min(_FIRST, _BLOCK), _Block()
    for rest in pieces:
        while len(rest):
            piece, rest = rest.cut(limit - block.size)
            block.pieces.append(piece)
            block.size += len(piece)
            if block.size == limit:
                yield block
                limit, block = min(2 * limit, _BLOCK), _Block()
    if block.size:
        yield block


class _Buffer:
    """Memory of one block, and when it is free again."""

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory
        self.view = memoryview(memory.numpy().data)
        self.copied = torch.cuda.Event(blocking=True) if memory.is_pinned() else None

    def send(self, block: _Block, stream: torch.cuda.Stream | None) -> None:
        """Start copying a block to its targets."""
        place = 0
        for piece in block.pieces:
            piece.target.copy_(self.memory[place : place + len(piece)], non_blocking=stream is not None)
            place += len(piece)
        if self.copied is not None and stream is not None:
            self.copied.record(stream)

    def wait(self) -> None:
        """Wait until the block that was sent last has left."""
        if self.copied is not None:
            self.copied.synchronize()


class _Transfer:
    """Blocks on their way from a file to a device, worked on by several threads."""

    def __init__(
        self, file: _File, buffers: list[_Buffer], stream: torch.cuda.Stream | None, blocks: list[_Block]
    ) -> None:
        self._file, self._buffers, self._stream, self._blocks = file, buffers, stream, blocks
        self._lock = Lock()
        self._stopped = False
        self.parts: deque[tuple[int, range]] = deque()
        for number, block in enumerate(blocks):
            ranges = list(block.ranges())
            block.missing = len(ranges)
            self.parts.extend((number, part) for part in ranges)

    def stop(self) -> None:
        """Let the threads finish what they are at, and begin nothing more."""
        self._stopped = True
        self.parts.clear()
        for block in self._blocks:
            block.sent.set()

    def run(self) -> None:
        """Read parts, in order, until none is left; send what is complete."""
        try:
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                while True:
                    try:
                        number, part = self.parts.popleft()
                    except IndexError:
                        return
                    self._read(number, part)
        except BaseException:
            self.stop()
            raise

    def _read(self, number: int, part: range) -> None:
        block, buffer = self._blocks[number], self._buffers[number % len(self._buffers)]
        if number >= len(self._buffers):
            self._blocks[number - len(self._buffers)].sent.wait()
            if self._stopped:
                return
            buffer.wait()
        block.read(self._file, buffer.view, part)
        with self._lock:
            block.missing -= 1
            complete = not block.missing
        if complete and not self._stopped:
            buffer.send(block, self._stream)
            block.sent.set()
