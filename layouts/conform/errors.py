"""Errors of a conformance run."""

from preshuffle.registry.base.errors import PreshuffleError


class ConformError(PreshuffleError, ValueError):
    """AITER or engine that cannot be compared with the book, and why."""
