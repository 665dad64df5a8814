"""The kernel tables that settings name: files and folders, or ``auto``, what AITER itself would read here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from preshuffle.registry.kernels import KernelTables, TableError

VARIABLE: Final = "AITER_CONFIG_FMOE"
_AUTO: Final = ("auto",)


def automatic_tables(environ: Mapping[str, str] | None = None) -> Literal["auto"] | list[str]:
    """Return the files that ``AITER_CONFIG_FMOE`` lists, where it is set: AITER then reads no others; else ``auto``.

    Example:
        >>> automatic_tables({"AITER_CONFIG_FMOE": "a.csv:b.csv"}), automatic_tables({})
        (['a.csv', 'b.csv'], 'auto')
    """
    text = (os.environ if environ is None else environ).get(VARIABLE, "")
    return [path for path in text.split(":") if path] or "auto"


def load_tables(wanted: Sequence[str]) -> KernelTables | None:
    """Load the tables that ``Settings.tables`` names; None where it names none.

    Raises:
        TableError: they do not load, with file and line; ``auto`` where no AITER is installed.
        OSError: a file cannot be read.
    """
    places = automatic_tables() if tuple(wanted) == _AUTO else list(wanted)
    return KernelTables.named(places) if places else None


def table_places(wanted: Sequence[str]) -> list[Path]:
    """Return the files and folders that ``load_tables`` reads, so far as they can be told beforehand."""
    places = automatic_tables() if tuple(wanted) == _AUTO else list(wanted)
    if places == "auto":
        from preshuffle.registry.kernels import installed_configs

        try:
            return [installed_configs()[0]]
        except TableError:
            return []
    return [Path(place if Path(place).exists() else place.rpartition("@")[0] or place) for place in places]
