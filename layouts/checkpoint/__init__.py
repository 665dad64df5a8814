"""Read and write MoE layers as safetensors checkpoints."""

from preshuffle.layouts.checkpoint.checkpoint import Checkpoint
from preshuffle.layouts.checkpoint.part import CheckpointError, unpack_int32
from preshuffle.layouts.checkpoint.write import write_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "unpack_int32",
    "write_checkpoint",
]
