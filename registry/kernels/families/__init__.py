"""Kernel families: name grammars, and the layouts that kernels read."""
