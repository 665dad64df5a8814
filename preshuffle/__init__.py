"""Registry, loader and service for MoE weight layouts on AMD ROCm.

The rooms are ``preshuffle.registry``, ``preshuffle.layouts`` and ``preshuffle.api``; nothing of them is imported here.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["__version__"]

__version__: str

# In a clone this folder holds no rooms, and Python that is started there finds it before the installed package.
if not os.path.isdir(os.path.join(__path__[0], "registry")):
    _FOLDERS = (os.path.join(entry, "preshuffle") for entry in sys.path)
    __path__ += [folder for folder in _FOLDERS if os.path.isdir(os.path.join(folder, "registry"))]


def __getattr__(name: str) -> Any:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # slow to import, and few ask

    globals()[name] = found = version(__name__)
    return found
