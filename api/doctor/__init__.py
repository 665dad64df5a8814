"""Report what is installed here and what works."""

from preshuffle.api.doctor.examine import examine

__all__ = [
    "examine",
]
