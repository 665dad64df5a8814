"""Progress of tasks on other machines, from the sizes of unfinished files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from preshuffle.layouts.laid_out.files.tensor_writer import file_of_partial, header_room
from preshuffle.layouts.laid_out.runs.unit_files import Unit, tensors_of

_DESCRIPTION: Final = 64 << 10
"""Bytes of a file's description, at most: what is written is never overstated."""


def partial_sizes(out: Path, units: Iterable[Unit]) -> Mapping[str, int]:
    """Return how many bytes of files' tensors are written, about.

    No process has to report, and none to listen. Where a task was repeated, the largest file counts.

    Args:
        out: the folder.
        units: those that tasks are writing.
    """
    writing = {unit.file: unit for unit in units}
    found: dict[str, int] = {}
    with os.scandir(out) as entries:
        for entry in entries:
            unit = writing.get(file_of_partial(entry.name) or "")
            if unit is None:
                continue
            try:
                size = entry.stat().st_size
            except OSError:  # renamed meanwhile
                continue
            written = max(0, size - header_room(tensors_of(unit), _DESCRIPTION))
            found[unit.file] = max(found.get(unit.file, 0), written)
    return found
