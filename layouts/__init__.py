"""Bytes of MoE tensors: put them into the order that a decision names, take them out, prove them. Needs torch."""

from preshuffle.layouts.apply import apply, describe, inverse
from preshuffle.layouts.checkpoint import Checkpoint, CheckpointError, write_checkpoint
from preshuffle.layouts.prove import Check, prove
from preshuffle.layouts.single import apply_layout, invert_layout
from preshuffle.layouts.stamp import Stamp, stamp_of

__all__ = [
    "Check",
    "Checkpoint",
    "CheckpointError",
    "Stamp",
    "apply",
    "apply_layout",
    "describe",
    "inverse",
    "invert_layout",
    "prove",
    "stamp_of",
    "write_checkpoint",
]
