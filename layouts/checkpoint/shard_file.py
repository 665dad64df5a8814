"""Safetensors file: its header, checked against its size, and its tensors' places."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch

from preshuffle.layouts.checkpoint.part import CheckpointError
from preshuffle.layouts.tensors import E8M0

_LARGEST_HEADER: Final = 100 << 20
"""Bytes of a header at most, as safetensors itself has it."""
_MOST_MARKS: Final = 4 << 20
"""Commas, colons and brackets of a header at most: of 380,000 tensors. Parsing takes memory by their number."""
_MOST_DIMS: Final = 64
_LARGEST_SIZE: Final = 1 << 63
TORCH_DTYPES: Final[dict[str, torch.dtype]] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": E8M0,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
}
"""Torch's dtypes by safetensors' names."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """Place of one tensor in a file.

    Attributes:
        dtype: safetensors' name.
        shape: as stored.
        begin: first byte, counted from the file's beginning.
        end: past its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class ShardFile:
    """Header of a safetensors file.

    Attributes:
        path: the file.
        head: all bytes before the first tensor's: the header's size and the header.
        entries: tensors in the order of their bytes.
        metadata: what the header says beside its tensors.
        size: of the whole file, as it must be.
    """

    path: Path
    head: bytes
    entries: Mapping[str, StoredEntry]
    metadata: Mapping[str, str]
    size: int

    @staticmethod
    def open(path: Path) -> ShardFile:
        """Read a file's header and compare it with the file's size.

        Raises:
            CheckpointError: the file cannot be read, is not safetensors, or is not as long as its header says.
        """
        head, size = read_head(path)
        return ShardFile.parse(path, head, size)

    @staticmethod
    def parse(path: Path, head: bytes, size: int | None = None) -> ShardFile:
        """Parse the bytes before a file's first tensor.

        Args:
            path: for messages.
            head: those bytes.
            size: of the file; not compared if None.

        Raises:
            CheckpointError: they are no safetensors header, or the file is of another size than it says.
        """
        text = head[8:].rstrip()  # some writers leave room behind it
        if len(text) > _MOST_MARKS and sum(map(text.count, (b",", b":", b"[", b"{"))) > _MOST_MARKS:
            raise CheckpointError(f"{path}: not a safetensors file (its header holds too many values)")
        try:
            table = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
            metadata = {str(key): str(value) for key, value in table.pop("__metadata__", {}).items()}
            found = [(name, _entry(name, value, len(head))) for name, value in table.items()]
            found.sort(key=lambda item: (item[1].begin, item[1].end))
        except RecursionError:
            raise CheckpointError(f"{path}: not a safetensors file (nested too deeply)") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path}: not a safetensors file ({error})") from None
        place = len(head)
        for name, entry in found:
            if entry.begin != place:
                raise CheckpointError(f"{path}: tensor {name!r:.200} begins at byte {entry.begin}; expected {place}")
            place = entry.end
        if size is not None and size != place:
            what = "cut short" if size < place else "too long"
            raise CheckpointError(f"{path}: {what}: it has {size} bytes, its header says {place}")
        return ShardFile(path, head, dict(found), metadata, place)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read; refuse pipes and devices.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no regular file")
    return os.fdopen(handle, "rb")


def read_regular(path: Path) -> bytes:
    """Return a regular file's bytes.

    Raises:
        OSError: see ``open_regular``.
    """
    with open_regular(path) as stream:
        return stream.read()


def read_head(path: Path) -> tuple[bytes, int]:
    """Return the bytes before a file's first tensor, and its size.

    Raises:
        CheckpointError: the file cannot be read, or is too short for them.
    """
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            length = stream.read(8)
            count = header_size(path, length)
            if count > size - 8:
                raise CheckpointError(f"{path}: not a safetensors file, or cut short")
            return length + stream.read(count), size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None


def header_size(path: Path | str, length: bytes) -> int:
    """Return a header's size from a file's first eight bytes.

    Raises:
        CheckpointError: they are no size of a header.
    """
    count = int.from_bytes(length, "little")
    if len(length) < 8 or not 2 <= count <= _LARGEST_HEADER:
        raise CheckpointError(f"{path}: not a safetensors file, or cut short")
    return count


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"{names.most_common(1)[0][0]!r:.200} is there twice")
    return table


def _entry(name: str, value: Any, start: int) -> StoredEntry:
    first, last = _numbers(name, value["data_offsets"])
    shape = _numbers(name, value["shape"])
    dtype = value["dtype"]
    if not isinstance(dtype, str):
        raise ValueError(f"tensor {name!r:.200} has no dtype")
    known = TORCH_DTYPES.get(dtype)
    if first > last or (known is not None and prod(shape) * known.itemsize != last - first):
        raise ValueError(f"tensor {name!r:.200} of shape {shape!r:.200} has {last - first} bytes")
    return StoredEntry(dtype, shape, start + first, start + last)


def _numbers(name: str, values: Any) -> tuple[int, ...]:
    """Return sizes or offsets, which are no text, no fraction and not below zero."""
    if not isinstance(values, list) or len(values) > _MOST_DIMS:
        raise ValueError(f"tensor {name!r:.200} has no shape or offsets")
    if not all(type(value) is int and 0 <= value < _LARGEST_SIZE for value in values):
        raise ValueError(f"tensor {name!r:.200} has a size or an offset that is none")
    return tuple(values)
