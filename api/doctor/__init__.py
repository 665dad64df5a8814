"""Report of this environment: what is installed and what works."""

from preshuffle.api.doctor.examine import examine

__all__ = [
    "examine",
]
