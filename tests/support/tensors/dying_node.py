"""Task of a Ray cluster that takes its node down in the middle of the first file that it writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from preshuffle.layouts.laid_out.cluster import unit_task
from preshuffle.layouts.laid_out.files.tensor_writer import TensorWriter

DIED = "died"
"""File beside the output that says which node died."""


def write_unit(unit: Any, sources: Any, out: Path, *rest: Any) -> Any:
    """Write a unit's file; the first task of all kills its node at the second write."""
    try:
        handle = os.open(out.parent / DIED, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return unit_task.write_unit(unit, sources, out, *rest)
    os.write(handle, unit.file.encode())
    os.fsync(handle)
    written = []
    append = TensorWriter.append

    def dying(writer: Any, data: Any) -> None:
        append(writer, data)
        written.append(data)
        if len(written) == 2:
            os.kill(os.getppid(), signal.SIGKILL)  # the node's raylet
            os.kill(os.getpid(), signal.SIGKILL)

    TensorWriter.append = dying  # type: ignore[assignment, method-assign]
    return unit_task.write_unit(unit, sources, out, *rest)
