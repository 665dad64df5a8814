"""Bytes of MoE tensors: put them into the order that a decision names, take them out, prove them. Needs torch."""

from preshuffle.layouts.apply import apply, describe, inverse
from preshuffle.layouts.single import apply_layout, invert_layout
from preshuffle.layouts.stamp import Stamp, stamp_of

__all__ = ["Stamp", "apply", "apply_layout", "describe", "inverse", "invert_layout", "stamp_of"]
