"""FlyDSL kernels of an AITER: compiled to MLIR on a CPU, and how they are called."""
