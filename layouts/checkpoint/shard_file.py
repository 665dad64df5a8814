"""Safetensors file: its header, checked against its size, and its tensors' places."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import torch

from preshuffle.layouts.checkpoint.part import CheckpointError
from preshuffle.layouts.tensors import E8M0

_LARGEST_HEADER: Final = 100 << 20
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
        try:
            with path.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                length = stream.read(8)
                count = int.from_bytes(length, "little")
                if len(length) < 8 or not 2 <= count <= min(_LARGEST_HEADER, size - 8):
                    raise CheckpointError(f"{path}: not a safetensors file, or cut short")
                head = length + stream.read(count)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
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
        try:
            table = json.loads(head[8:])
            metadata = {str(key): str(value) for key, value in table.pop("__metadata__", {}).items()}
            found = sorted(
                ((str(name), _entry(value, len(head))) for name, value in table.items()), key=lambda item: item[1].begin
            )
        except RecursionError:
            raise CheckpointError(f"{path}: not a safetensors file (nested too deeply)") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path}: not a safetensors file ({error})") from None
        place = len(head)
        for name, entry in found:
            if entry.begin != place:
                raise CheckpointError(f"{path}: tensor {name} begins at byte {entry.begin}; expected {place}")
            place = entry.end
        if size is not None and size != place:
            what = "cut short" if size < place else "too long"
            raise CheckpointError(f"{path}: {what}: it has {size} bytes, its header says {place}")
        return ShardFile(path, head, dict(found), metadata, place)


def _entry(value: Mapping[str, Any], start: int) -> StoredEntry:
    first, last = (int(offset) for offset in value["data_offsets"])
    shape = tuple(int(size) for size in value["shape"])
    dtype = str(value["dtype"])
    known = TORCH_DTYPES.get(dtype)
    if first > last or (known is not None and prod(shape) * known.itemsize != last - first):
        raise ValueError(f"a tensor of shape {shape} has {last - first} bytes")
    return StoredEntry(dtype, shape, start + first, start + last)
