"""Program of a kernel: instructions compiled to functions when first reached."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from preshuffle.layouts.emulator.code_object import CodeObject
from preshuffle.layouts.emulator.errors import UnmodelledInstructionError
from preshuffle.layouts.emulator.isa.global_access import compile_global, compile_scalar_load
from preshuffle.layouts.emulator.isa.instructions import Instruction, InstructionStream
from preshuffle.layouts.emulator.isa.lds import compile_lds
from preshuffle.layouts.emulator.isa.matrix_core import compile_matrix
from preshuffle.layouts.emulator.isa.operands import unmodelled
from preshuffle.layouts.emulator.isa.scalar import compile_scalar
from preshuffle.layouts.emulator.isa.vector import compile_vector
from preshuffle.layouts.emulator.isa.waves import EXEC, VCC, Mask, Waves

Run = Callable[[Waves], None]
Condition = Callable[[Waves], Mask]


class StepKind(Enum):
    """What the scheduler has to do with an instruction."""

    SCALAR = auto()
    VECTOR = auto()
    BRANCH = auto()
    BARRIER = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """Compiled instruction.

    Attributes:
        run: changes the waves' state; None for control flow.
        taken: for a branch, which waves take it.
        target: for a branch, where to.
    """

    kind: StepKind
    instruction: Instruction
    following: int
    run: Run | None = None
    taken: Condition | None = None
    target: int = 0


def _zero(register: int) -> Condition:
    return lambda waves: waves.scalars[register] | waves.scalars[register + 1] == 0


def _set(register: int) -> Condition:
    return lambda waves: waves.scalars[register] | waves.scalars[register + 1] != 0


BRANCHES: dict[str, Condition] = {
    "s_branch": lambda waves: np.ones(waves.count, np.bool_),
    "s_cbranch_scc0": lambda waves: ~waves.scc,
    "s_cbranch_scc1": lambda waves: waves.scc.copy(),
    "s_cbranch_vccz": _zero(VCC),
    "s_cbranch_vccnz": _set(VCC),
    "s_cbranch_execz": _zero(EXEC),
    "s_cbranch_execnz": _set(EXEC),
}
WITHOUT_EFFECT = {"s_nop", "s_waitcnt", "s_sleep", "s_setprio", "s_sethalt", "s_icache_inv"}
"""Waits and hints: every instruction here is complete when the next one begins."""

SCALAR_ENCODINGS = {"SOP1", "SOP2", "SOPC", "SOPK"}
COMPILERS: dict[str, Callable[[Instruction], Run]] = {
    **dict.fromkeys(SCALAR_ENCODINGS, compile_scalar),
    "SMEM": compile_scalar_load,
    "DS": compile_lds,
    "GLOBAL": compile_global,
    "MUBUF": compile_global,
    **dict.fromkeys(("VOP1", "VOP2", "VOP3", "VOP3SD", "VOPC"), compile_vector),
    "VOP3PX2": compile_matrix,
}


class Program:
    """Code object ready to run; compiled once, run many times."""

    def __init__(self, code: CodeObject) -> None:
        """Prepare to run ``code``."""
        self.code = code
        self.stream = InstructionStream(code)
        self._steps: dict[int, Step] = {}

    def step(self, address: int) -> Step:
        """Return the compiled instruction at an address.

        Raises:
            UnmodelledInstructionError: its meaning is not known.
            CodeObjectError: there is none.
        """
        found = self._steps.get(address)
        if found is None:
            found = self._steps[address] = compile_step(self.stream.at(address))
        return found

    def not_modelled(self) -> Counter[str]:
        """Return instructions that are not modelled, with their counts.

        Of the whole code, run or not.
        """
        missing: Counter[str] = Counter()
        for instruction in self.stream:
            try:
                compile_step(instruction)
            except UnmodelledInstructionError:
                missing[instruction.name] += 1
        return missing


def compile_step(instruction: Instruction) -> Step:
    """Return what an instruction does."""
    following = instruction.address + instruction.size
    if instruction.encoding == "SOPP":
        return _control(instruction, following)
    compiler = COMPILERS.get(instruction.encoding)
    if instruction.encoding == "VOP3P":
        compiler = compile_matrix if instruction.name.startswith("v_mfma") else compile_vector
    if compiler is None:
        raise unmodelled(instruction)
    scalar = instruction.encoding in SCALAR_ENCODINGS or instruction.encoding == "SMEM"
    return Step(StepKind.SCALAR if scalar else StepKind.VECTOR, instruction, following, compiler(instruction))


def _control(instruction: Instruction, following: int) -> Step:
    name = instruction.name
    if name in BRANCHES:
        words = (instruction.fields["simm16"] ^ 0x8000) - 0x8000
        return Step(StepKind.BRANCH, instruction, following, None, BRANCHES[name], following + 4 * words)
    if name == "s_barrier":
        return Step(StepKind.BARRIER, instruction, following)
    if name == "s_endpgm":
        return Step(StepKind.END, instruction, following)
    if name in WITHOUT_EFFECT:
        return Step(StepKind.SCALAR, instruction, following, lambda waves: None)
    raise unmodelled(instruction)
