"""Read and write MoE layers as safetensors checkpoints."""

from preshuffle.layouts.checkpoint.checkpoint import Checkpoint
from preshuffle.layouts.checkpoint.part import CheckpointError
from preshuffle.layouts.checkpoint.write import write_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "write_checkpoint",
]
