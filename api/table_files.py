"""Kernel tables named by settings: files, folders, or ``auto`` for AITER's own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from preshuffle.registry.kernels import KernelTables, TableError

VARIABLE: Final = "AITER_CONFIG_FMOE"
_AUTO: Final = ("auto",)


def automatic_tables(environ: Mapping[str, str] | None = None) -> Literal["auto"] | list[str]:
    """Return the files in ``AITER_CONFIG_FMOE``, or ``auto`` if it is not set.

    AITER reads no other tables where the variable is set.

    Example:
        >>> automatic_tables({"AITER_CONFIG_FMOE": "a.csv:b.csv"}), automatic_tables({})
        (['a.csv', 'b.csv'], 'auto')
    """
    text = (os.environ if environ is None else environ).get(VARIABLE, "")
    return [path for path in text.split(":") if path] or "auto"


def load_tables(names: Sequence[str]) -> KernelTables | None:
    """Load the tables named by ``Settings.tables``; return None if it is empty.

    Raises:
        TableError: a table does not load, with file and line; or ``auto`` and no AITER is installed.
        OSError: a file cannot be read.
    """
    places = _places(names)
    return KernelTables.named(places) if places else None


def table_places(names: Sequence[str]) -> list[Path]:
    """Return the files and folders that ``load_tables`` reads, without loading them."""
    places = _places(names)
    if places == "auto":
        from preshuffle.registry.kernels import installed_configs

        try:
            return [installed_configs()[0]]
        except TableError:
            return []
    return [Path(place if Path(place).exists() else place.rpartition("@")[0] or place) for place in places]


def _places(names: Sequence[str]) -> Literal["auto"] | list[str]:
    return automatic_tables() if tuple(names) == _AUTO else list(names)
