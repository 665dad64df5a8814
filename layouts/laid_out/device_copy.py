"""Copies of a file's tensors to a device, overlapped with reading them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.tensors import as_bytes

_MOST_LANES: Final = 16
"""Threads that read: one copies 5 to 10 GB/s out of the page cache, a GPU takes 50."""
_PIECE: Final = 8 << 20
"""Bytes that are read and sent at once: few steps of Python, and the first is soon there."""
_BUFFERS: Final = 2

Piece = tuple[int, torch.Tensor]
"""Where a piece begins in the file, and the flat bytes that get it."""


class DeviceCopier:
    """Copies tensors of files to a device.

    Several threads read into pinned memory; while one of a thread's two buffers is on its way to the GPU, the other is
    filled. Copies run on a stream of their own. Any other device is written to directly.
    """

    def __init__(self, device: torch.device) -> None:
        """Copy to a device.

        Threads and buffers are made at the first copy.
        """
        self._device = device
        self._lanes: list[_Lane] = []
        self._threads: ThreadPoolExecutor | None = None
        self._stream: torch.cuda.Stream | None = None

    def fill(self, path: Path, tensors: Sequence[tuple[torch.Tensor, int]]) -> None:
        """Fill tensors from a file; wait until all bytes have arrived.

        Args:
            path: the file.
            tensors: contiguous tensors of the device, and where the bytes of each begin in the file.

        Raises:
            LaidOutError: the file cannot be read, or ends before a tensor does.
        """
        pieces: deque[Piece] = deque()
        for tensor, begin in tensors:
            flat = as_bytes(tensor)
            pieces.extend((begin + first, flat[first : first + _PIECE]) for first in range(0, flat.numel(), _PIECE))
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._send(handle, pieces)
            finally:
                os.close(handle)
        except OSError as error:
            raise LaidOutError(f"{path}: cannot be read: {error.strerror}") from None
        except EOFError:
            raise LaidOutError(f"{path}: ends before its tensors do: verify it") from None

    def _send(self, handle: int, pieces: deque[Piece]) -> None:
        threads = self._start()
        if self._stream is not None:  # the tensors' memory may still be in use by what was freed there
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        work = [threads.submit(lane.run, handle, pieces) for lane in self._lanes[: len(pieces)]]
        try:
            for one in work:
                one.result()
        finally:
            pieces.clear()
            wait(work)
            if self._stream is not None:
                self._stream.synchronize()

    def _start(self) -> ThreadPoolExecutor:
        """Return the threads, with a lane for each."""
        if self._threads is None:
            count = min(_MOST_LANES, len(os.sched_getaffinity(0)))
            if self._device.type == "cuda":
                self._stream = torch.cuda.Stream(self._device)
            self._lanes = [_Lane(self._stream) for _ in range(count)]
            self._threads = ThreadPoolExecutor(count, "device-copy")
        return self._threads


@dataclass(slots=True, eq=False)
class _Lane:
    """One thread's buffers, used in turn.

    Attributes:
        stream: on which a GPU copies; None where the target is written to directly.
    """

    stream: torch.cuda.Stream | None
    buffers: list[torch.Tensor] = field(default_factory=list)
    sent: list[torch.cuda.Event] = field(default_factory=list)

    def run(self, handle: int, pieces: deque[Piece]) -> None:
        """Read and send pieces until none is left."""
        try:
            with torch.inference_mode(), torch.cuda.stream(self.stream):
                turn = 0
                while True:
                    try:
                        begin, target = pieces.popleft()
                    except IndexError:
                        return
                    self._move(turn % _BUFFERS, handle, begin, target)
                    turn += 1
        except BaseException:
            pieces.clear()  # the other threads stop, too
            raise

    def _move(self, turn: int, handle: int, begin: int, target: torch.Tensor) -> None:
        if self.stream is None:
            buffer = target if target.device.type == "cpu" else torch.empty(target.numel(), dtype=torch.uint8)
        else:
            if len(self.buffers) <= turn:
                self.buffers.append(torch.empty(_PIECE, dtype=torch.uint8, pin_memory=True))
                self.sent.append(torch.cuda.Event(blocking=True))
            self.sent[turn].synchronize()  # at once where nothing was sent from it
            buffer = self.buffers[turn][: target.numel()]
        _read(handle, begin, buffer)
        if buffer is not target:
            target.copy_(buffer, non_blocking=self.stream is not None)
        if self.stream is not None:
            self.sent[turn].record(self.stream)


def _read(handle: int, begin: int, buffer: torch.Tensor) -> None:
    """Fill a flat buffer from a file.

    Raises:
        EOFError: the file ends before.
    """
    view = memoryview(buffer.numpy().data)
    count = 0
    while count < len(view):
        read = os.preadv(handle, [view[count:]], begin + count)
        if not read:
            raise EOFError
        count += read
