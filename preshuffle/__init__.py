"""Registry, loader and service for MoE weight layouts on AMD ROCm.

The rooms are ``preshuffle.registry``, ``preshuffle.layouts`` and ``preshuffle.api``; nothing of them is imported here.
"""

from __future__ import annotations

from typing import Any

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> Any:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # slow to import, and few ask

    globals()[name] = found = version(__name__)
    return found
