"""The tables that ``auto`` means: what AITER itself would read here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal

VARIABLE: Final = "AITER_CONFIG_FMOE"


def automatic_tables(environ: Mapping[str, str] | None = None) -> Literal["auto"] | list[str]:
    """Return the files that ``AITER_CONFIG_FMOE`` lists, where it is set: AITER then reads no others; else ``auto``.

    Example:
        >>> automatic_tables({"AITER_CONFIG_FMOE": "a.csv:b.csv"}), automatic_tables({})
        (['a.csv', 'b.csv'], 'auto')
    """
    text = (os.environ if environ is None else environ).get(VARIABLE, "")
    return [path for path in text.split(":") if path] or "auto"
