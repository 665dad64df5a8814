"""Memory-mapped safetensors files, read without keeping their pages."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from preshuffle.layouts.checkpoint.page_advice import read_ahead
from preshuffle.layouts.checkpoint.part import CheckpointError
from preshuffle.layouts.checkpoint.present_pages import PageRange, PresentPages
from preshuffle.layouts.checkpoint.shard_file import TORCH_DTYPES, ShardFile, StoredEntry, open_regular
from preshuffle.layouts.stamps import FileState, state_of_file


class MappedShards:
    """Mapped files of a checkpoint, each opened once; for several threads."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._lock = Lock()
        self._files: dict[Path, tuple[ShardFile, mmap.mmap]] = {}
        self.pages = PresentPages()

    def header(self, path: Path) -> ShardFile:
        """Return a file's header.

        Raises:
            CheckpointError: see ``ShardFile.open``.
        """
        return self._file(path)[0]

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """Read tensors; give their pages back afterwards.

        What was read must be copied before the end.
        """
        reading = Reading(self)
        try:
            yield reading
        finally:
            self.pages.release(reading.touched)

    def entry(self, path: Path, name: str) -> tuple[mmap.mmap, StoredEntry]:
        """Return a file's mapping and the place of one of its tensors.

        Raises:
            CheckpointError: the file has no such tensor, or see ``ShardFile.open``.
        """
        shard, mapped = self._file(path)
        entry = shard.entries.get(name)
        if entry is None:
            raise CheckpointError("the index names this file, which does not hold it: shards of several checkpoints?")
        return mapped, entry

    def mapping(self, path: Path) -> mmap.mmap:
        """Return a file's mapping."""
        return self._file(path)[1]

    def forget(self, path: Path) -> None:
        """Forget a file: it is read again if it is asked for."""
        with self._lock:
            _, mapped = self._files.pop(path, (None, None))
        if mapped is not None:
            self.pages.forget(mapped)

    def _file(self, path: Path) -> tuple[ShardFile, mmap.mmap]:
        with self._lock:
            if path not in self._files:
                shard = ShardFile.open(path)
                self._files[path] = shard, map_file(path)[0]
            return self._files[path]


@dataclass(slots=True)
class Reading:
    """Tensors opened for one piece of work.

    Attributes:
        shards: whose tensors.
        touched: pages that were read.
    """

    shards: MappedShards
    touched: list[PageRange] = field(default_factory=list)

    def tensor(self, path: Path, name: str) -> MappedTensor:
        """Open one tensor.

        Raises:
            CheckpointError: the file has no such tensor, cannot be read, or its dtype is unknown.
        """
        mapped, entry = self.shards.entry(path, name)
        if entry.dtype not in TORCH_DTYPES:
            raise CheckpointError(f"its dtype is {entry.dtype}; valid: {', '.join(TORCH_DTYPES)}")
        return MappedTensor(mapped, entry, self)

    def bytes(self, path: Path, begin: int, end: int) -> torch.Tensor:
        """Return a byte range of a file's mapping, as a view.

        Raises:
            CheckpointError: the file was cut short.
        """
        mapped = self.shards.mapping(path)
        self.make_present(mapped, begin, end)
        return torch.frombuffer(mapped, dtype=torch.uint8, count=end - begin, offset=begin)

    def make_present(self, mapped: mmap.mmap, begin: int, end: int, *, shared: bool = False) -> None:
        """Make a byte range's pages present until the reading ends.

        Args:
            mapped: the file's mapping.
            begin: first byte.
            end: past the last byte.
            shared: whether only a part of the bytes is read, and others are likely to be read soon.

        Raises:
            CheckpointError: they are not in the file any more, or cannot be read.
        """
        if begin == end:
            return
        pages = PageRange.of(mapped, begin, end, shared)
        self.shards.pages.acquire(pages)
        self.touched.append(pages)


class MappedTensor:
    """Stored tensor that is sliced as safetensors' slices are, without a copy."""

    def __init__(self, mapped: mmap.mmap, entry: StoredEntry, reading: Reading) -> None:
        """View a tensor in a mapping."""
        self._mapped, self._entry, self._reading = mapped, entry, reading

    def get_shape(self) -> tuple[int, ...]:
        """Return its shape."""
        return self._entry.shape

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Return a part, as a view of the mapping."""
        several = isinstance(index, tuple)
        self._make_present(index[0] if several else index, shared=several)
        entry = self._entry
        dtype = TORCH_DTYPES[entry.dtype]
        if not entry.nbytes:
            return torch.empty(entry.shape, dtype=dtype)[index]
        flat = torch.frombuffer(self._mapped, dtype=torch.uint8, count=entry.nbytes, offset=entry.begin)
        if entry.begin % dtype.itemsize:  # torch views aligned bytes only
            flat = flat.clone()
        return flat.view(dtype).view(entry.shape)[index]

    def _make_present(self, first: Any, *, shared: bool) -> None:
        entry = self._entry
        begin, end = entry.begin, entry.end
        if isinstance(first, slice) and entry.shape:
            start, stop, _ = first.indices(entry.shape[0])
            row = entry.nbytes // max(entry.shape[0], 1)
            begin, end = entry.begin + start * row, entry.begin + max(start, stop) * row
        self._reading.make_present(self._mapped, begin, end, shared=shared)


def map_file(path: Path, *, ahead: bool = False) -> tuple[mmap.mmap, FileState]:
    """Map a regular file privately.

    What is written to the mapping stays in this process.

    Args:
        path: the file.
        ahead: have the system read all of it, in its order, without waiting for it.

    Returns:
        The mapping, and the state of the file that it shows.

    Raises:
        CheckpointError: it cannot be mapped.
    """
    try:
        with open_regular(path) as stream:
            state = state_of_file(stream.fileno())
            if ahead:
                read_ahead(stream.fileno(), state[0])
            # a private mapping is never written; torch only asks that it could be
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY), state
    except (OSError, ValueError) as error:
        full = isinstance(error, OSError) and error.errno == errno.EMFILE
        advice = "; each mapped file takes one: raise the limit (ulimit -n)" if full else ""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CheckpointError(f"{path}: cannot be mapped: {reason}{advice}") from None
