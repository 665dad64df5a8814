"""Interpreter of AMD GPU code objects (gfx942, gfx950) on a CPU."""

from preshuffle.layouts.emulator.code_object import CodeObject
from preshuffle.layouts.emulator.errors import (
    CodeObjectError,
    EmulatorError,
    MemoryAccessError,
    UnmodelledInstructionError,
)
from preshuffle.layouts.emulator.launch import LaunchResult, launch
from preshuffle.layouts.emulator.memory import GlobalMemory
from preshuffle.layouts.emulator.mlir import KernelIr, launch_ir
from preshuffle.layouts.emulator.number_formats import (
    E2M1,
    FP8_OF_ARCH,
    bf16_to_float,
    float_to_bf16,
    float_to_code,
)
from preshuffle.layouts.emulator.program import Program

__all__ = [
    "E2M1",
    "FP8_OF_ARCH",
    "CodeObject",
    "CodeObjectError",
    "EmulatorError",
    "GlobalMemory",
    "KernelIr",
    "LaunchResult",
    "MemoryAccessError",
    "Program",
    "UnmodelledInstructionError",
    "bf16_to_float",
    "float_to_bf16",
    "float_to_code",
    "launch",
    "launch_ir",
]
