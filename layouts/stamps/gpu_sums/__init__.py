"""Fingerprints of several tensors of a GPU with one kernel launch."""

from preshuffle.layouts.stamps.gpu_sums.launch import can_sum, sum_parts

__all__ = ["can_sum", "sum_parts"]
