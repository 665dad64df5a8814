"""Writer of one safetensors file that appears when it is whole.

Tensors are written as they come; the header, which holds their checksums, is written last into room that was left for
it. A file is synchronised before it is renamed: after a power failure there is all of it, or none.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch

from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import TensorRecord
from preshuffle.layouts.laid_out.files.seal import BLANK, sealed
from preshuffle.layouts.stamps import Loss, Stamp, StreamDigest, digest_of, sample_file
from preshuffle.registry.base.words import Role

PARTIAL: Final = ".partial"
"""Ending of a file that is being written."""
UNIT: Final = "preshuffle-laid-out"
"""Key of a file's own description among its metadata."""
RECORDS: Final = "preshuffle-tensors"
"""Key of the records of its tensors."""
SEAL: Final = "preshuffle-header"
"""Key of the header's own checksum."""
_PAGE: Final = 4096
_ROOM: Final = 4096
"""Bytes of the header that are left for one tensor and its stamp."""
_WRITTEN: Final = 128 << 10
"""Bytes of one write. For one of several MiB Linux looks for as large a page: ext4 took five times as long."""
_BEGIN_WRITING: Final = 2
"""Linux's ``SYNC_FILE_RANGE_WRITE``: the disk begins, and nothing waits."""


@dataclass(slots=True)
class _Stored:
    dtype: str
    torch_dtype: str | None
    shape: tuple[int, ...]
    begin: int
    nbytes: int
    digest: str
    role: Role | None
    stamp: str | None
    lost: tuple[Loss, ...]


class TensorWriter:
    """Safetensors file that is being written."""

    def __init__(self, path: Path, tensors: int, description: Mapping[str, Any]) -> None:
        """Create the file under another name.

        Args:
            path: its name when it is whole.
            tensors: how many there will be.
            description: what the header says of the file.

        Raises:
            LaidOutError: it cannot be written.
        """
        self.path = path
        self._partial = unique_partial(path)
        self._description = json.dumps(description, separators=(",", ":"), sort_keys=True)
        self._begin = header_room(tensors, len(self._description))
        self._place = self._begin
        self._stored: dict[str, _Stored] = {}
        self._handle = -1
        with writing(self._partial):
            self._handle = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def abandon(self) -> None:
        """Remove what was written, unless the file was sealed."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
            with suppress(OSError):
                self._partial.unlink()

    def tensor(self, name: str, role: Role | None = None) -> OpenTensorWriter:
        """Begin the next tensor."""
        return OpenTensorWriter(self, name, role, self._place)

    def append(self, data: torch.Tensor) -> None:
        """Write flat uint8 bytes behind those before.

        Raises:
            LaidOutError: they cannot be written.
        """
        view, begin = memoryview(data.numpy().data), self._place
        with writing(self.path):
            while view:
                count = os.pwrite(self._handle, view[: _WRITTEN - self._place % _WRITTEN], self._place)
                self._place += count
                view = view[count:]
        _begin_writing(self._handle, begin, self._place - begin)

    def add(self, name: str, stored: _Stored) -> None:
        """Record a tensor whose bytes were written."""
        self._stored[name] = stored

    def seal(self) -> tuple[int, str, tuple[TensorRecord, ...]]:
        """Write the header, synchronise the file and give it its name.

        Returns:
            The file's size, its header's checksum, and its tensors.

        Raises:
            LaidOutError: it cannot be written.
        """
        with writing(self.path):
            records = tuple(self._record(name, stored) for name, stored in self._stored.items())
            header, checksum = sealed(self._header(records))
            os.pwrite(self._handle, header, 0)
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = -1
            os.rename(self._partial, self.path)
        return self._place, checksum, records

    def _header(self, records: Iterable[TensorRecord]) -> bytes:
        listed = json.dumps([one.model_dump(mode="json", exclude_defaults=True) for one in records])
        table: dict[str, Any] = {
            "__metadata__": {"format": "pt", UNIT: self._description, RECORDS: listed, SEAL: BLANK}
        }
        for name, one in self._stored.items():
            first = one.begin - self._begin
            table[name] = {"dtype": one.dtype, "shape": one.shape, "data_offsets": [first, first + one.nbytes]}
            if one.stamp:
                table["__metadata__"][f"preshuffle.{name}"] = one.stamp
        text = json.dumps(table, separators=(",", ":")).encode()
        if len(text) > self._begin - 8:
            raise LaidOutError(f"{self.path}: a header of {len(text)} bytes has no room; this is a bug")
        return (self._begin - 8).to_bytes(8, "little") + text.ljust(self._begin - 8)

    def _record(self, name: str, one: _Stored) -> TensorRecord:
        sample = digest_of(sample_file(self._partial, (one.begin, one.begin + one.nbytes)))
        return TensorRecord(
            name=name,
            role=one.role,
            dtype=one.dtype,
            torch_dtype=one.torch_dtype,
            shape=one.shape,
            begin=one.begin,
            nbytes=one.nbytes,
            digest=one.digest,
            sample=sample,
            stamped=one.stamp is not None,
            lost=one.lost,
        )


class OpenTensorWriter:
    """Tensor of a file, written in pieces."""

    def __init__(self, file: TensorWriter, name: str, role: Role | None, begin: int) -> None:
        """Begin a tensor."""
        self._file, self._name, self._role, self._begin = file, name, role, begin
        self._digest = StreamDigest()
        self._nbytes = 0

    def write(self, data: torch.Tensor) -> None:
        """Write the next flat uint8 bytes."""
        self._digest.update(data)
        self._nbytes += data.numel()
        self._file.append(data)

    def finish(
        self, dtype: str, shape: tuple[int, ...], torch_dtype: str | None = None, stamp: Stamp | None = None
    ) -> None:
        """End the tensor.

        Args:
            dtype: safetensors' name.
            shape: as stored.
            torch_dtype: torch's name of the dtype that the kernel gets, where safetensors has none for it.
            stamp: what its bytes are; without a digest yet.
        """
        digest = self._digest.text()
        text = replace(stamp, digest=digest).to_text() if stamp else None
        lost = stamp.lost if stamp else ()
        begin, size = self._begin, self._nbytes
        self._file.add(
            self._name, _Stored(dtype, torch_dtype, shape, begin, size, digest, self._role, text, tuple(lost))
        )


def unique_partial(path: Path) -> Path:
    """Return a name for a file that is being written.

    It is another one each time: processes that write the same file, on whatever machine, do not disturb each other.
    """
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def file_of_partial(name: str) -> str | None:
    """Return a partial file's final name; None for other files."""
    found = re.fullmatch(rf"(.+)\.[0-9a-f]{{8}}{re.escape(PARTIAL)}", name)
    return found[1] if found else None


def header_room(tensors: int, description: int) -> int:
    """Return the bytes before a file's first tensor.

    Args:
        tensors: how many there will be.
        description: bytes of the file's own description.
    """
    room = 8 + _ROOM * (tensors + 1) + 2 * description
    return -(-room // _PAGE) * _PAGE


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file where writing fails.

    Raises:
        LaidOutError: names the file and why; of a full disk, that the same command resumes.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; make room and run the same command again, it resumes" if full else ""
        raise LaidOutError(f"{path}: cannot be written: {error.strerror or error}{advice}") from None


def synchronise_folder(folder: Path) -> None:
    """Make names that were given in a folder outlast a power failure.

    Raises:
        LaidOutError: they cannot be written.
    """
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file that appears when it is whole.

    Raises:
        LaidOutError: it cannot be written.
    """
    with appearing(path) as stream:
        stream.write(data)


def write_changed(path: Path, data: bytes) -> None:
    """Write a small file unless it holds these bytes.

    Raises:
        LaidOutError: it cannot be written.
    """
    try:
        same = os.path.isfile(path) and path.read_bytes() == data
    except OSError:  # writing it says more
        same = False
    if not same:
        write_whole(path, data)


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file, which appears when it is whole.

    Raises:
        LaidOutError: it cannot be read or written.
    """
    with appearing(path) as stream, source.open("rb") as read:
        shutil.copyfileobj(read, stream)


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears when it is whole.

    Raises:
        LaidOutError: it cannot be written.
    """
    partial = unique_partial(path)
    with writing(path):
        try:
            with partial.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _begin_writing(handle: int, begin: int, size: int) -> None:
    """Let the disk begin with what was written, so that synchronising waits less."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(handle, ctypes.c_int64(begin), ctypes.c_int64(size), _BEGIN_WRITING)


_SYNC_FILE_RANGE: Final = getattr(ctypes.CDLL(None), "sync_file_range", None)
