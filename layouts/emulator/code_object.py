"""ELF code object of one kernel: sections, descriptor and entry point."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from preshuffle.layouts.emulator.errors import CodeObjectError

ELF_MAGIC = b"\x7fELF"
AMDGPU_MACHINE = 224
MACHINE_FLAGS = {0x4C: "gfx942", 0x4F: "gfx950"}
"""Low byte of the ELF flags (EF_AMDGPU_MACH) of each GPU that the emulator knows."""
OTHER_FLAGS = {
    0x30: "gfx908",
    0x3F: "gfx90a",
    0x41: "gfx1100",
    0x48: "gfx1200",
    0x49: "gfx1250",
    0x4E: "gfx1201",
}
"""The same of GPUs whose code objects are told by name and not run."""

DESCRIPTOR_SIZE = 64
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True, slots=True)
class Section:
    """Section of an ELF file: its place in file and memory."""

    address: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class KernelDescriptor:
    """Launch facts of a kernel: registers that hold arguments and block ids.

    ``user_registers`` counts the scalar registers that the launch fills before the block ids; the address of the
    arguments is in the pair that begins at ``argument_register``.
    """

    entry: int
    lds_bytes: int
    argument_bytes: int
    user_registers: int
    argument_register: int
    block_ids: tuple[bool, bool, bool]


@dataclass(frozen=True, slots=True)
class CodeObject:
    """Kernel as shipped: machine code, descriptor, GPU and SHA-256."""

    name: str
    arch: str
    sha256: str
    text: bytes
    text_address: int
    descriptor: KernelDescriptor

    @classmethod
    def read(cls, path: Path, holding: tuple[str, ...] = ()) -> "CodeObject":
        """Read a code object from a file.

        Args:
            path: the file.
            holding: texts that the kernel's name holds, where the file has several kernels.

        Raises:
            CodeObjectError: the file cannot be read, is cut off, or is of a GPU that the emulator does not know.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CodeObjectError(f"{path}: {error.strerror or error}") from error
        return cls.parse(data, path.name, holding)

    @classmethod
    def parse(cls, data: bytes, file_name: str, holding: tuple[str, ...] = ()) -> "CodeObject":
        """Parse the bytes of a code object; ``file_name`` names it in errors."""
        if data[:4] != ELF_MAGIC:
            raise CodeObjectError(f"{file_name} is not a code object: it does not begin with ELF's magic number")
        try:
            return _parse(data, file_name, holding)
        except (struct.error, IndexError, KeyError, ValueError) as error:
            raise CodeObjectError(f"{file_name} is cut off or damaged: {error}") from error


def _parse(data: bytes, file_name: str, holding: tuple[str, ...]) -> CodeObject:
    (machine,) = struct.unpack_from("<H", data, 18)
    if machine != AMDGPU_MACHINE:
        raise CodeObjectError(f"{file_name} is an ELF file of machine {machine}, not of an AMD GPU ({AMDGPU_MACHINE})")
    (flags,) = struct.unpack_from("<I", data, 48)
    arch = MACHINE_FLAGS.get(flags & 0xFF)
    if arch is None:
        known = ", ".join(MACHINE_FLAGS.values())
        name = OTHER_FLAGS.get(flags & 0xFF)
        what = f"{name}, machine flag" if name else "a GPU with machine flag"
        raise CodeObjectError(f"{file_name} is for {what} {flags & 0xFF:#x}; the emulator knows {known}")
    sections = _sections(data)
    symbols = _symbols(data, sections)
    kernels = sorted(name for name in symbols if name.endswith(".kd") and all(text in name for text in holding))
    if len(kernels) != 1:
        raise ValueError(f"{len(kernels)} kernel descriptors, expected 1")
    text = sections[".text"]
    descriptor = _descriptor(data, sections[".rodata"], symbols[kernels[0]])
    return CodeObject(
        name=kernels[0].removesuffix(".kd"),
        arch=arch,
        sha256=hashlib.sha256(data).hexdigest(),
        text=_slice(data, text.offset, text.size),
        text_address=text.address,
        descriptor=descriptor,
    )


def _slice(data: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise ValueError(f"{size} bytes at {offset:#x}, but the file ends at {len(data):#x}")
    return data[offset : offset + size]


def _sections(data: bytes) -> dict[str, Section]:
    (table,) = struct.unpack_from("<Q", data, 40)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 58)
    headers = [SECTION_HEADER.unpack_from(data, table + index * entry_size) for index in range(count)]
    names = _slice(data, headers[names_index][4], headers[names_index][5])
    return {_string(names, header[0]): Section(header[3], header[4], header[5]) for header in headers}


def _symbols(data: bytes, sections: dict[str, Section]) -> dict[str, int]:
    table, strings = (".symtab", ".strtab") if ".symtab" in sections else (".dynsym", ".dynstr")
    names = _slice(data, sections[strings].offset, sections[strings].size)
    symbols = _slice(data, sections[table].offset, sections[table].size)
    return {_string(names, name): value for name, _, _, _, value, _ in SYMBOL.iter_unpack(symbols)}


def _string(names: bytes, at: int) -> str:
    return names[at : names.index(b"\0", at)].decode()


def _descriptor(data: bytes, rodata: Section, address: int) -> KernelDescriptor:
    raw = _slice(data, rodata.offset + address - rodata.address, DESCRIPTOR_SIZE)
    lds_bytes, _, argument_bytes = struct.unpack_from("<III", raw, 0)
    (entry,) = struct.unpack_from("<q", raw, 16)
    (resources,) = struct.unpack_from("<I", raw, 52)
    (properties,) = struct.unpack_from("<H", raw, 56)
    return KernelDescriptor(
        entry=address + entry,
        lds_bytes=lds_bytes,
        argument_bytes=argument_bytes,
        user_registers=resources >> 1 & 31,
        argument_register=_argument_register(properties),
        block_ids=(bool(resources >> 7 & 1), bool(resources >> 8 & 1), bool(resources >> 9 & 1)),
    )


def _argument_register(properties: int) -> int:
    """First of the two registers with the arguments' address: after those of the enabled properties before it."""
    if not properties >> 3 & 1:
        raise ValueError("the kernel takes no arguments")
    return sum(count for bit, count in ((0, 4), (1, 2), (2, 2)) if properties >> bit & 1)
