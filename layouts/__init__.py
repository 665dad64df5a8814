"""Bytes of MoE tensors: put them into the order that a decision names, take them out, prove them. Needs torch."""

from preshuffle.layouts.single import apply_layout, invert_layout

__all__ = ["apply_layout", "invert_layout"]
