"""Sources of bytes: tensors in memory, and mapped tensor files.

Of files only the touched pages are read.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import torch

from preshuffle.layouts.tensors import as_bytes
from preshuffle.registry import PreshuffleError

PAGE: Final = mmap.PAGESIZE
_LARGEST_HEADER: Final = 100 << 20
ITEM: Final[dict[str, int]] = {
    "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F4": 1, "F4_X2": 1, "BOOL": 1,
    "BF16": 2, "F16": 2, "I16": 2, "U16": 2, "F32": 4, "I32": 4, "U32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
"""Bytes of one element by safetensors' dtype names (two fp4 values share a byte)."""
_NAMES: Final = {
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "uint8": "U8",
    "int8": "I8",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "float4_e2m1fn_x2": "F4_X2",
}


class SourceError(PreshuffleError, ValueError):
    """Bytes cannot be read, or shapes do not fit.

    The message names the file and the tensor.
    """


class Bytes:
    """Bytes of one tensor, read on demand and counted.

    Attributes:
        name: what to call it in a message.
        shape: of the tensor, as stored.
        dtype: safetensors' name of its dtype.
        nbytes: how many bytes there are.
        touched: which pages of the file were read (empty for a tensor in memory).
        overhead: bytes read to find the tensor (a file's header).
    """

    def __init__(
        self,
        name: str,
        data: torch.Tensor,
        shape: tuple[int, ...],
        dtype: str,
        *,
        offset: int | None,
        overhead: int = 0,
    ) -> None:
        """Take flat uint8 bytes.

        ``offset`` is where they begin in a file, None for a tensor in memory.
        """
        self.name, self.shape, self.dtype = name, shape, dtype
        self.nbytes = data.numel()
        self.touched = torch.zeros(0 if offset is None else (offset + self.nbytes) // PAGE + 1, dtype=torch.bool)
        self.overhead = overhead
        self._data, self._offset, self._read = data, offset, 0

    @property
    def begin(self) -> int:
        """Offset of the bytes in their file (0 in memory)."""
        return self._offset or 0

    @property
    def item(self) -> int:
        """Bytes of one element."""
        return ITEM[self.dtype]

    @property
    def bytes_read(self) -> int:
        """Bytes read so far.

        Whole pages of a file with its header, single bytes of a tensor in memory.
        """
        return self._read if self._offset is None else self.overhead + int(self.touched.sum()) * PAGE

    def known(self, positions: torch.Tensor) -> torch.Tensor:
        """Return which positions lie on pages already read.

        All of them in memory, where none counts.
        """
        if self._offset is None:
            return torch.ones_like(positions, dtype=torch.bool)
        return self.touched[self._pages(positions)]

    def read(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the bytes at positions, on the CPU.

        In the positions' shape.
        """
        if self._offset is None:
            self._read += positions.numel()
        else:
            self.touched[self._pages(positions)] = True
        return self._data[positions.to(self._data.device)].cpu()

    def window(self, position: int) -> tuple[int, int]:
        """Return the byte range readable at no more cost.

        First byte and past the last, around a position.
        """
        start = position - (position + self.begin) % PAGE
        return max(start, 0), min(start + PAGE, self.nbytes)

    def _pages(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.div(positions + self.begin, PAGE, rounding_mode="floor")


class Widened(Bytes):
    """The bf16 bytes inside fp32 values that were widened from bf16.

    They are the upper two of every four bytes.
    """

    def __init__(self, source: Bytes) -> None:
        """Wrap a source of fp32 values."""
        self._source = source
        super().__init__(source.name, torch.empty(0, dtype=torch.uint8), source.shape, "BF16", offset=None)
        self.nbytes = source.nbytes // 2

    @property
    def bytes_read(self) -> int:
        """Bytes read so far."""
        return self._source.bytes_read

    def known(self, positions: torch.Tensor) -> torch.Tensor:
        """Return which positions lie on pages already read."""
        return self._source.known(self._in_source(positions))

    def read(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the bytes at positions."""
        return self._source.read(self._in_source(positions))

    def window(self, position: int) -> tuple[int, int]:
        """Return the byte range readable at no more cost."""
        first, last = self._source.window(2 * position + 2)
        return first // 2, last // 2

    def _in_source(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.div(positions, 2, rounding_mode="floor") * 4 + 2 + positions % 2


def of_tensor(tensor: torch.Tensor, name: str) -> Bytes:
    """Return a tensor's bytes; a GPU tensor stays there.

    Raises:
        SourceError: its dtype is of no use here.
        LayoutError: it is not contiguous.
    """
    dtype = _NAMES.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise SourceError(
            f"{name}: {str(tensor.dtype).removeprefix('torch.')} is no dtype of weights, scales or biases"
        )
    return Bytes(name, as_bytes(tensor.detach()), tuple(tensor.shape), dtype, offset=None)


@dataclass(frozen=True)
class TensorFile:
    """Safetensors file: its header is read, its tensors are mapped."""

    path: Path
    header: Mapping[str, Mapping[str, Any]]
    begin: int

    @staticmethod
    def open(path: Path | str) -> TensorFile:
        """Read a file's header.

        Raises:
            SourceError: the file cannot be read or is not safetensors.
        """
        path = Path(path)
        try:
            with path.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                if not 2 <= size <= min(_LARGEST_HEADER, path.stat().st_size - 8):
                    raise SourceError(f"{path}: not a safetensors file (its header would have {size} bytes)")
                header = json.loads(stream.read(size))
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
        except RecursionError:
            raise SourceError(f"{path}: not a safetensors file (nested too deeply)") from None
        except ValueError as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(f"{path}: not a safetensors file ({error})") from None
        if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
            raise SourceError(f"{path}: not a safetensors file (its header is no table)")
        header.pop("__metadata__", None)
        return TensorFile(path, header, 8 + size)

    def tensor(self, name: str) -> Bytes:
        """Map one tensor.

        Raises:
            SourceError: there is none of the name, or its entry is wrong.
        """
        entry = self.header.get(name)
        if entry is None:
            raise SourceError(f"{self.path} has no tensor {name!r}; valid: {_some(self.header)}")
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
            first, last = (int(offset) for offset in entry["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{self.path}: tensor {name}: its entry is wrong ({error})") from None
        if dtype not in ITEM:
            raise SourceError(f"{self.path}: tensor {name} is {dtype}; valid: {', '.join(ITEM)}")
        return _mapped(self.path, name, shape, dtype, self.begin + first, last - first, self.begin)


def of_raw_file(path: Path | str, shape: tuple[int, ...], dtype: str) -> Bytes:
    """Map a file of one tensor's bare bytes.

    Args:
        path: where it lies.
        shape: torch's shape.
        dtype: safetensors' or torch's name of the dtype (two fp4 values are one uint8 element).

    Raises:
        SourceError: the file has another size, or there is no such dtype.
    """
    name = _NAMES.get(dtype.removeprefix("torch."), dtype.upper())
    if name not in ITEM:
        raise SourceError(f"dtype {dtype!r}; valid: {', '.join(sorted({*_NAMES, *ITEM}))}")
    path = Path(path)
    nbytes = prod(shape) * ITEM[name]
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    if size != nbytes:
        raise SourceError(f"{path} has {size} bytes; {'x'.join(map(str, shape))} of {name} has {nbytes}")
    return _mapped(path, path.name, shape, name, 0, nbytes, 0)


def _mapped(path: Path, name: str, shape: tuple[int, ...], dtype: str, begin: int, nbytes: int, header: int) -> Bytes:
    try:
        with path.open("rb") as stream:
            # a private mapping is never written; torch only asks that it could be
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be mapped: {error}") from None
    if not 0 < nbytes <= len(mapped) - begin:
        raise SourceError(f"{path}: tensor {name} is cut short or empty ({nbytes} bytes)")
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    data = torch.frombuffer(mapped, dtype=torch.uint8, count=nbytes, offset=begin)
    return Bytes(
        f"{path.name}:{name}" if name != path.name else name, data, shape, dtype, offset=begin, overhead=header
    )


def _some(names: Mapping[str, object], most: int = 12) -> str:
    all_names = list(names)
    more = f" and {len(all_names) - most} more" if len(all_names) > most else ""
    return ", ".join(all_names[:most]) + more
