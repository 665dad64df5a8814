"""AITER's choice of kernels for one call, step by step."""
