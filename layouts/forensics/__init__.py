"""Identify the layout of live bytes against a checkpoint."""

from preshuffle.layouts.forensics.files import Place, identify_files
from preshuffle.layouts.forensics.identify import ExpertRange, Identification, identify

__all__ = [
    "ExpertRange",
    "Identification",
    "Place",
    "identify",
    "identify_files",
]
