"""Identification of the layout of live bytes against a checkpoint."""

from preshuffle.layouts.forensics.checkpoint_layer import CheckpointLayer
from preshuffle.layouts.forensics.files import TensorLocation, identify_files
from preshuffle.layouts.forensics.identification import ExpertRange, ExpertSlot, Identification
from preshuffle.layouts.forensics.identify import identify

__all__ = [
    "CheckpointLayer",
    "ExpertRange",
    "ExpertSlot",
    "Identification",
    "TensorLocation",
    "identify",
    "identify_files",
]
