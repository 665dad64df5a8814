"""Instruction decoding with the `tinygrad` wheel, memoised by address."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from preshuffle.layouts.emulator.code_object import CodeObject
from preshuffle.layouts.emulator.errors import CodeObjectError, EmulatorError

LONGEST_INSTRUCTION = 20
SUFFIXES = ("_e32", "_e64")
VARIANTS = ("_SDWA_SDST", "_DPP16", "_SDWA", "_SDST", "_MFMA", "_LIT")


@dataclass(frozen=True, slots=True)
class Instruction:
    """Machine instruction: name without encoding suffix, encoding, and its fields.

    Attributes:
        name: AMD's mnemonic in lower case, such as ``v_add_u32``.
        encoding: ``VOP2``, ``SOPC``, … ; variants apart.
        variant: ``DPP16``, ``SDWA``, ``LIT`` or nothing.
        fields: by AMD's names. Operands are in the unified numbering: 0 to 105 scalar registers, 128 to 248
            inline constants, 255 the literal, 256 to 511 vector registers.
    """

    address: int
    size: int
    name: str
    encoding: str
    variant: str
    fields: dict[str, int]

    def __str__(self) -> str:
        """Return the instruction as errors show it."""
        return f"{self.name} ({self.encoding}{' ' if self.variant else ''}{self.variant}) at {self.address:#x}"


class InstructionStream:
    """Machine code of a kernel, decoded one instruction at a time."""

    def __init__(self, code: CodeObject) -> None:
        """Decode from ``code``'s text section."""
        self.code = code
        self._decode = _decoder()
        self._decoded: dict[int, Instruction] = {}

    def at(self, address: int) -> Instruction:
        """Return the instruction at an address.

        Raises:
            CodeObjectError: there is no instruction.
        """
        found = self._decoded.get(address)
        if found is None:
            found = self._decoded[address] = self._decode_at(address)
        return found

    def __iter__(self) -> "InstructionIterator":
        """Iterate over all instructions of the text section, in order."""
        return InstructionIterator(self)

    def _decode_at(self, address: int) -> Instruction:
        start = address - self.code.text_address
        raw = self.code.text[start : start + LONGEST_INSTRUCTION] if start >= 0 else b""
        if len(raw) < 4:
            raise CodeObjectError(f"{self.code.name} has no instruction at {address:#x}: its code is cut off there")
        try:
            decoded = self._decode(raw, "cdna")
        except (ValueError, AssertionError) as error:
            raise CodeObjectError(
                f"{self.code.name}: no instruction of {self.code.arch} at {address:#x}: {error}"
            ) from error
        return _instruction(address, decoded)


class InstructionIterator:
    """Iterator over a stream of instructions."""

    def __init__(self, stream: InstructionStream) -> None:
        """Begin at the start of the text section."""
        self._stream = stream
        self._address = stream.code.text_address
        self._end = stream.code.text_address + len(stream.code.text)

    def __iter__(self) -> "InstructionIterator":
        """Return itself."""
        return self

    def __next__(self) -> Instruction:
        """Return the next instruction."""
        if self._address >= self._end:
            raise StopIteration
        instruction = self._stream.at(self._address)
        self._address += instruction.size
        return instruction


def _decoder() -> Callable[[bytes, str], Any]:
    try:
        decode: Callable[[bytes, str], Any] = import_module("tinygrad.renderer.amd").decode_inst
    except ImportError as error:
        raise EmulatorError("decoding needs tinygrad: install preshuffle[proofs]") from error
    return decode


def _instruction(address: int, decoded: Any) -> Instruction:
    name = decoded.op_name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    encoding, variant = type(decoded).__name__, ""
    for ending in VARIANTS:
        if encoding.endswith(ending):
            encoding, variant = encoding.removesuffix(ending), ending[1:].removesuffix("_SDST")
    fields = {
        field: _number(getattr(decoded, field)) for field, _ in decoded._fields if field not in ("op", "encoding")
    }
    return Instruction(address, decoded.size(), name, encoding, "" if variant in ("SDST", "MFMA") else variant, fields)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else int(value.offset)
