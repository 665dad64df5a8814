"""Journal of a restoration: which files' tensors are in their places."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Final

from preshuffle.layouts.laid_out.files.errors import LaidOutError
from preshuffle.layouts.laid_out.files.manifest import WORK
from preshuffle.layouts.laid_out.files.tensor_writer import write_whole, writing

_NAME: Final = "restored.txt"


class RestoreJournal:
    """Names of laid-out files whose tensors were written back; for several threads.

    It is no proof: what was restored is compared with the checkpoint's digests at the end, so that bytes which a power
    failure lost are noticed.
    """

    def __init__(self, folder: Path, checksum: str) -> None:
        """Read what an earlier run has left.

        Args:
            folder: that is restored to.
            checksum: of the manifest.

        Raises:
            LaidOutError: another laid-out checkpoint is being restored to that folder.
        """
        self._path = journal_of(folder)
        self._checksum = checksum
        self._lock = Lock()
        self.done: set[str] = set()
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        if lines and lines[0] != checksum:
            raise LaidOutError(
                f"{folder}: holds an unfinished restoration of another laid-out checkpoint; choose another folder, or "
                "remove this one"
            )
        self.resumed = bool(lines)
        self.done.update(lines[1:])
        if not lines:
            self.forget()

    def forget(self) -> None:
        """Begin again: nothing is written back yet."""
        self.done.clear()
        write_whole(self._path, f"{self._checksum}\n".encode())

    def add(self, file: str) -> None:
        """Note that a file's tensors are in their places."""
        with self._lock, writing(self._path), self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"{file}\n")

    def missing(self, files: Iterable[str]) -> set[str]:
        """Return the files that are not noted."""
        return set(files) - self.done


def journal_of(folder: Path) -> Path:
    """Return where a folder's journal is."""
    return folder / WORK / _NAME
