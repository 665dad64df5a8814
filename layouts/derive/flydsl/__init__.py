"""FlyDSL kernels of an AITER, compiled to MLIR and called.

A CPU suffices.
"""
