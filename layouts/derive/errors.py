"""Errors of derivation."""

from preshuffle.registry.base.errors import PreshuffleError


class DeriveError(PreshuffleError):
    """Kernel whose layouts cannot be derived, and why."""
