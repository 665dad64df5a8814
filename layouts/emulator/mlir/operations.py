"""Operations of a kernel and the functions that run them, by name."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preshuffle.layouts.emulator.errors import UnmodelledInstructionError
from preshuffle.layouts.emulator.mlir.text import ParsedOperation
from preshuffle.layouts.emulator.mlir.types import IrType

Run = Callable[..., Any]
"""Takes the threads and the operands' values, returns the result's value (None where there is none)."""

_SUFFIX = re.compile(r"(\.(v\d+)?[ifbp]+\d+)+$")
_WAITS = re.compile(r"((s_barrier|s_waitcnt[^;\n]*|s_nop.*|s_setprio.*|;.*|)(\\0A|\n|;|\s)*)*")


@dataclass(frozen=True, slots=True)
class Operation:
    """Operation to compile.

    An intrinsic or inline assembly counts as one of its own name.

    Attributes:
        name: MLIR's name.
        label: that name, or the intrinsic's, or the assembly's text.
    """

    name: str
    label: str
    parsed: ParsedOperation

    @staticmethod
    def of(parsed: ParsedOperation) -> "Operation":
        """Return a parsed operation under its own name."""
        label = parsed.name
        if label == "llvm.call_intrinsic":
            label = parsed.text("intrin")
        elif label == "llvm.call":
            label = f"call {parsed.text('callee')}"
        elif label == "llvm.inline_asm":
            label = "asm " + re.sub(r"\s+", " ", parsed.text("asm_string"))
        return Operation(parsed.name, label, parsed)

    @property
    def operands(self) -> tuple[IrType, ...]:
        """Types of the operands."""
        return self.parsed.operand_types

    @property
    def result(self) -> IrType:
        """Type of the only result."""
        return self.parsed.result_types[0]

    def unmodelled(self, what: str = "") -> UnmodelledInstructionError:
        """Return the error that names this operation."""
        return UnmodelledInstructionError(f"{self.label}{': ' + what if what else ''}: not modelled")


def without_type(label: str) -> str:
    """Return an intrinsic's name without the types that overload it."""
    return _SUFFIX.sub("", label)


Compiler = Callable[[Operation], Run]
COMPILERS: dict[str, Compiler] = {}


def compiles(*names: str) -> Callable[[Compiler], Compiler]:
    """Register a function that compiles operations of these names."""

    def register(compiler: Compiler) -> Compiler:
        COMPILERS.update(dict.fromkeys(names, compiler))
        return compiler

    return register


def compile_operation(operation: Operation) -> Run:
    """Return the function that runs an operation.

    Raises:
        UnmodelledInstructionError: its meaning is not known.
    """
    label = operation.label
    if operation.name == "llvm.inline_asm" and not operation.parsed.results and _WAITS.fullmatch(label[4:].strip()):
        label = "asm s_waitcnt"
    compiler = COMPILERS.get(label) or COMPILERS.get(without_type(label))
    if compiler is None:
        raise operation.unmodelled()
    return compiler(operation)
