"""Kernels over ranges of token counts, compared and traced."""
