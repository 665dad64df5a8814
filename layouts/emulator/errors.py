"""Errors of the emulator: each names what it could not run."""

from preshuffle.registry.base.errors import PreshuffleError


class EmulatorError(PreshuffleError):
    """Failure to run a kernel on the CPU."""


class CodeObjectError(EmulatorError):
    """File that is not a whole code object of a known GPU."""


class UnmodelledInstructionError(EmulatorError):
    """Instruction whose meaning the emulator does not know."""


class MemoryAccessError(EmulatorError):
    """Access to bytes that no buffer of the launch owns."""
