"""Executors of byte moves between layouts, in PyTorch and Triton."""

from preshuffle.layouts.moves.execute import can_cast, inference_writable, lay_out, lay_out_cast, take_back
from preshuffle.layouts.moves.executor_numpy import lay_out_on_thread
from preshuffle.layouts.moves.in_place import SCRATCH_BYTES, InPlace

__all__ = [
    "SCRATCH_BYTES",
    "InPlace",
    "can_cast",
    "inference_writable",
    "lay_out",
    "lay_out_cast",
    "lay_out_on_thread",
    "take_back",
]
