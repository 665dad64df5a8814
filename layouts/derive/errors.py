"""Errors of derivation."""

from preshuffle.registry.base.errors import PreshuffleError


class DeriveError(PreshuffleError, ValueError):
    """Kernel whose layouts cannot be derived, and why."""


class AiterNotInstalledError(DeriveError):
    """AMD's AITER, which has the kernels, is not installed."""

    exit_code = 3
