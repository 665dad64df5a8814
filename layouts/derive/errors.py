"""Errors of derivation."""

from collections.abc import Sequence

from preshuffle.registry.base.errors import PreshuffleError


class DeriveError(PreshuffleError, ValueError):
    """Kernel whose layouts cannot be derived, and why."""


class UnknownKernelError(DeriveError):
    """Kernel name that this AITER, or this library, does not know."""


class UnknownGpuError(DeriveError):
    """GPU whose kernels cannot be run on a CPU here."""

    def __init__(self, arch: str, known: Sequence[str]) -> None:
        """Name the GPUs that can."""
        super().__init__(
            f"{arch}: neither the decoder (tinygrad) nor the emulator knows this GPU's instructions; "
            f"valid: {', '.join(known)}"
        )


class AiterNotInstalledError(DeriveError):
    """AMD's AITER, which has the kernels, is not installed."""

    exit_code = 3
