"""Interpreter of kernels in MLIR's LLVM dialect, as FlyDSL makes them."""
