"""Interpreter of kernels in MLIR's LLVM dialect, as FlyDSL makes them."""

from preshuffle.layouts.emulator.mlir.kernel import KernelIr
from preshuffle.layouts.emulator.mlir.launch import launch_ir

__all__ = ["KernelIr", "launch_ir"]
