"""Files of a checkpoint that are written tensor by tensor."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from preshuffle.layouts.checkpoint import TORCH_DTYPES, ShardFile, StoredEntry, advise
from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.tensor_writer import PARTIAL, writing

_PAGE = mmap.PAGESIZE
Place = tuple[mmap.mmap, StoredEntry]


class ShardTargets:
    """Mapped files of full size, under other names until published.

    Their room is allocated first: a full disk is an error then, not the end of the process.
    """

    def __init__(
        self, folder: Path, headers: Iterable[ShardFile], names: Iterable[str] | None = None, *, reuse: bool = False
    ) -> None:
        """Create the files, or open those of an earlier run.

        Args:
            folder: where.
            headers: of the files; their names are taken from the paths.
            names: tensors that will be written; all if None.
            reuse: open unpublished files that have the size and the header; ``created`` says whether all did.

        Raises:
            LaidOutError: there is no room, or they cannot be written.
        """
        wanted = None if names is None else set(names)
        self.paths: list[Path] = []
        self._places: dict[str, Place] = {}
        self.created = False
        try:
            self._open(folder, headers, wanted, reuse)
        except BaseException:
            self.abandon()
            raise

    def _open(self, folder: Path, headers: Iterable[ShardFile], wanted: set[str] | None, reuse: bool) -> None:
        for header in headers:
            path = folder / header.path.name
            entries = {name: entry for name, entry in header.entries.items() if wanted is None or name in wanted}
            mapped = _reopened(partial_of(path), header) if reuse else None
            if mapped is None:
                self.created = True
                mapped = _created(partial_of(path), header, entries if wanted is not None else None)
            self.paths.append(path)
            self._places.update({name: (mapped, entry) for name, entry in entries.items()})

    @contextmanager
    def writing(self) -> Iterator[WritingShards]:
        """Write tensors; give their pages back afterwards."""
        shards = WritingShards(self._places)
        try:
            yield shards
        finally:
            for mapped, begin, end in shards.touched:
                with suppress(OSError, ValueError):
                    advise(mapped, mmap.MADV_DONTNEED, begin, end)

    def synchronise(self) -> None:
        """Wait until all bytes are on the disk.

        Raises:
            LaidOutError: they cannot be written.
        """
        for path in self.paths:
            with writing(path), partial_of(path).open("rb+") as stream:
                os.fsync(stream.fileno())

    def publish(self) -> None:
        """Give the files their names."""
        for path in self.paths:
            with writing(path):
                os.rename(partial_of(path), path)

    def abandon(self) -> None:
        """Remove what was not published."""
        for path in self.paths:
            partial_of(path).unlink(missing_ok=True)


@dataclass(slots=True)
class WritingShards:
    """Tensors that one piece of work writes.

    Attributes:
        touched: page ranges that were written.
    """

    places: Mapping[str, Place]
    touched: list[tuple[mmap.mmap, int, int]] = field(default_factory=list)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor's bytes in its file, as the tensor.

        Raises:
            LaidOutError: the checkpoint has no such tensor.
        """
        _, entry = self._place(name)
        dtype = TORCH_DTYPES[entry.dtype]
        if not entry.nbytes:
            return torch.empty(entry.shape, dtype=dtype)
        if entry.begin % dtype.itemsize:
            raise LaidOutError(f"tensor {name} is not aligned in its file: it cannot be restored in place")
        return self.bytes(name).view(dtype).view(entry.shape)

    def bytes(self, name: str) -> torch.Tensor:
        """Return a tensor's flat bytes in its file."""
        mapped, entry = self._place(name)
        self.touched.append((mapped, entry.begin // _PAGE * _PAGE, entry.end))
        return torch.frombuffer(mapped, dtype=torch.uint8, count=entry.nbytes, offset=entry.begin)

    def _place(self, name: str) -> Place:
        if name not in self.places:
            raise LaidOutError(f"the checkpoint has no tensor {name}")
        return self.places[name]


def partial_of(path: Path) -> Path:
    """Return a file's name while it is being written."""
    return path.with_name(path.name + PARTIAL)


def _created(path: Path, header: ShardFile, entries: Mapping[str, StoredEntry] | None) -> mmap.mmap:
    """Create a file with a header, and room for all tensors or some."""
    with writing(path), path.open("wb+") as stream:
        try:
            handle = stream.fileno()
            os.ftruncate(handle, header.size)
            extents = [(0, header.size)] if entries is None else [(one.begin, one.nbytes) for one in entries.values()]
            for begin, size in extents:
                if size:
                    os.posix_fallocate(handle, begin, size)
            os.pwrite(handle, header.head, 0)
            return mmap.mmap(handle, header.size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _reopened(path: Path, header: ShardFile) -> mmap.mmap | None:
    """Map a file that an earlier run left, if it has the size and the header."""
    try:
        with path.open("rb+") as stream:
            if os.fstat(stream.fileno()).st_size != header.size or stream.read(len(header.head)) != header.head:
                return None
            return mmap.mmap(stream.fileno(), header.size)
    except OSError:
        return None
