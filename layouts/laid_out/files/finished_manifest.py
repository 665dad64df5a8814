"""Manifest of an output folder, read once for each file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from preshuffle.layouts.laid_out.files.manifest import MANIFEST, Manifest


@dataclass(slots=True)
class FinishedManifest:
    """What a finished run says of an output folder.

    Attributes:
        out: the folder.
    """

    out: Path
    _read: tuple[tuple[int, int] | None, Manifest] | None = field(default=None, init=False)

    @property
    def state(self) -> tuple[int, int] | None:
        """The file's time of modification and inode; None without a file."""
        try:
            found = os.stat(self.out / MANIFEST)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def read(self) -> Manifest:
        """Return the manifest as it is now.

        Raises:
            LaidOutError: there is none, or it is damaged.
        """
        state = self.state
        if self._read is None or state is None or self._read[0] != state:
            self._read = state, Manifest.read(self.out)
        return self._read[1]
