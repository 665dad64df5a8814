"""Move bytes between layouts: PyTorch and Triton executors."""

from preshuffle.layouts.moves.execute import lay_out, take_back, writable
from preshuffle.layouts.moves.in_place import SCRATCH_BYTES, InPlace

__all__ = [
    "SCRATCH_BYTES",
    "InPlace",
    "lay_out",
    "take_back",
    "writable",
]
