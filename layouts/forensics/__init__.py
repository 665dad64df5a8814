"""Identification of the layout of live bytes against a checkpoint."""

from preshuffle.layouts.forensics.files import TensorLocation, identify_files
from preshuffle.layouts.forensics.identify import ExpertRange, Identification, identify

__all__ = [
    "ExpertRange",
    "Identification",
    "TensorLocation",
    "identify",
    "identify_files",
]
