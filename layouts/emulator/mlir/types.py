"""Types of MLIR's LLVM dialect, and how their values are stored.

A value is a numpy array whose first axis is the thread (or 1 where all threads have the same), with a second axis for
the elements of a vector. Integers are unsigned arrays; bf16 and 8-bit floats are codes; an i1 is a Boolean. A struct is
a list of values, a buffer pointer (address space 7 or 8) a `BufferView`.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.errors import UnmodelledInstructionError
from preshuffle.layouts.emulator.number_formats import bf16_to_float, float_to_bf16

Array = NDArray[Any]
Kind = Literal["integer", "float", "bf16", "pointer", "vector", "array", "struct", "none"]

LDS_SPACE = 3
BUFFER_SPACES = (7, 8)
_INTEGERS = {1: np.bool_, 4: np.uint8, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
_FLOATS = {8: np.uint8, 16: np.float16, 32: np.float32, 64: np.float64}


@dataclass(frozen=True, slots=True)
class IrType:
    """Type of a value.

    Attributes:
        bits: of an integer or float.
        count: elements of a vector or array.
        element: their type.
        parts: types of a struct's fields.
        space: address space of a pointer.
    """

    kind: Kind
    bits: int = 0
    count: int = 1
    element: "IrType | None" = None
    parts: tuple["IrType", ...] = ()
    space: int = 0

    @property
    def scalar(self) -> "IrType":
        """Type of an element; the type itself where it has none."""
        return self if self.element is None else self.element.scalar

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numpy array that stores the elements."""
        scalar = self.scalar
        if scalar.kind == "integer":
            if scalar.bits > 64:
                return np.dtype(f"V{scalar.bits // 8}")  # bytes that are only moved
            return np.dtype(_INTEGERS[scalar.bits])
        if scalar.kind == "float":
            return np.dtype(_FLOATS[scalar.bits])
        return np.dtype(np.uint16 if scalar.kind == "bf16" else np.uint64)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        if self.kind == "struct":
            return sum(part.size for part in self.parts)
        if self.element is not None:
            return self.count * self.element.scalar.bits // 8 if self._packed else self.count * self.element.size
        if self.kind == "pointer":
            return 4 if self.space == LDS_SPACE else 8
        return max(1, self.bits // 8)

    @property
    def _packed(self) -> bool:
        return self.scalar.kind == "integer" and self.scalar.bits == 4


@cache
def parse_type(text: str) -> IrType:
    """Return the type that MLIR prints as ``text``.

    Raises:
        UnmodelledInstructionError: it is of no known kind.
    """
    text = text.strip().removeprefix("!llvm.")
    if text == "index":
        return IrType("integer", 64)
    if text == "bf16":
        return IrType("bf16", 16)
    if text in ("void", "none"):
        return IrType("none")
    for pattern, make in _PATTERNS:
        found = re.fullmatch(pattern, text)
        if found:
            made: IrType = make(found)
            return made
    raise UnmodelledInstructionError(f"type {text}: not modelled")


def split_list(text: str) -> list[str]:
    """Split at commas outside brackets and strings."""
    parts, depth, quoted, start = [], 0, False, 0
    for at, character in enumerate(text):
        if character == '"' and text[at - 1 : at] != "\\":
            quoted = not quoted
        elif quoted:
            continue
        elif character in "<([{":
            depth += 1
        elif character in ")]}" or (character == ">" and text[at - 1] != "-"):
            depth -= 1
        elif character == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()] if text[start:].strip() else parts


_PATTERNS: tuple[tuple[str, Any], ...] = (
    (r"i(\d+)", lambda found: IrType("integer", int(found[1]))),
    (r"f(16|32|64)", lambda found: IrType("float", int(found[1]))),
    (r"f(8|4)E\w+", lambda found: IrType("float", 8)),
    (r"ptr(?:<(\d+)>)?", lambda found: IrType("pointer", 64, space=int(found[1] or 0))),
    (
        r"(?:vector|vec)<(\d+) ?x ?(.*)>",
        lambda found: IrType("vector", count=int(found[1]), element=parse_type(found[2])),
    ),
    (r"array<(\d+) x (.*)>", lambda found: IrType("array", count=int(found[1]), element=parse_type(found[2]))),
    (
        r"struct<(?:packed )?\((.*)\)>",
        lambda found: IrType("struct", parts=tuple(parse_type(part) for part in split_list(found[1]))),
    ),
)

_SIGNED: dict[Any, Any] = {np.uint8: np.int8, np.uint16: np.int16, np.uint32: np.int32, np.uint64: np.int64}


def signed(values: Array) -> Array:
    """Return unsigned integers read as two's complement; true is -1."""
    if values.dtype == np.bool_:
        return -values.astype(np.int8)
    return values.view(_SIGNED[values.dtype.type])


def floats(values: Array, type: IrType) -> Array:
    """Return the numbers of a float value: bf16 codes become float32."""
    return bf16_to_float(values) if type.scalar.kind == "bf16" else values


def of_floats(numbers: Array, type: IrType) -> Array:
    """Return numbers as a value of a float type."""
    if type.scalar.kind == "bf16":
        return float_to_bf16(numbers.astype(np.float32))
    return numbers.astype(type.dtype)


def to_bytes(values: Array, type: IrType) -> NDArray[np.uint8]:
    """Return a value's bytes as in memory, shape ``[threads, size]``."""
    scalar = type.scalar
    table = values.reshape(len(values), -1)
    if scalar.kind == "integer" and scalar.bits == 1:
        return np.packbits(table, axis=1, bitorder="little")
    if scalar.kind == "integer" and scalar.bits == 4:
        return (table[:, 0::2] & 15 | table[:, 1::2] << 4).astype(np.uint8)
    if scalar.kind == "pointer" and scalar.space == LDS_SPACE:
        table = table.astype(np.uint32)
    return np.ascontiguousarray(table).view(np.uint8).reshape(len(values), -1)


def of_bytes(raw: NDArray[np.uint8], type: IrType) -> Array:
    """Return the value that bytes in memory are."""
    scalar = type.scalar
    raw = np.ascontiguousarray(raw)
    values: Array
    if scalar.kind == "integer" and scalar.bits == 1:
        values = np.unpackbits(raw, axis=1, bitorder="little")[:, : type.count].astype(np.bool_)
    elif scalar.kind == "integer" and scalar.bits == 4:
        values = np.stack([raw & 15, raw >> 4], 2).reshape(len(raw), -1)
    elif scalar.kind == "pointer" and scalar.space == LDS_SPACE:
        values = raw.view(np.uint32).astype(np.uint64)
    else:
        values = raw.view(scalar.dtype)
    return values if type.element is not None else values[:, 0]
