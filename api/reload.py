"""The book's overlays, watched: a change that loads is answered from, one that does not leaves the last good book."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from preshuffle.registry.books import Book
from preshuffle.registry.errors import BookError, Problem
from preshuffle.registry.registry import Registry

log = logging.getLogger("preshuffle.api")

_SUFFIXES: Final = (".yaml", ".yml")
_Seen = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ReloadState:
    """How the last reload went.

    Attributes:
        problems: what is wrong with the files as they are now; empty: what is there is what is answered from.
        failures: reloads that failed since the start.
        reloads: reloads that succeeded since the start.
        at: when this last changed.
    """

    problems: tuple[Problem, ...] = ()
    failures: int = 0
    reloads: int = 0
    at: datetime | None = None


class BookWatcher:
    """Looks at the overlays' files whenever it is asked to, by one thread at a time."""

    def __init__(self, overlays: Sequence[str], follow: Callable[[Book], None], current: str) -> None:
        """Watch overlays.

        Args:
            overlays: folders or files, as ``Registry.load`` takes them.
            follow: called with a new book that has loaded.
            current: digest of the book that is answered from.
        """
        self.state = ReloadState()
        self._overlays = tuple(overlays)
        self._follow = follow
        self._current = current
        self._loaded = self._before = self._look()

    def poll(self) -> bool:
        """Load what has changed once it has stayed the same for two looks; return whether anything was tried.

        Whoever writes a file does not do so at once: a look between would see half a book.
        """
        seen = self._look()
        settled, self._before = seen == self._before, seen
        if seen == self._loaded or not settled:
            return False
        try:
            book = Registry.load(self._overlays).book
        except BookError as error:
            if self._look() == seen:
                self._fail(seen, error.problems)
            return True
        if self._look() != seen:
            return False  # it changed while it was read
        self._loaded = seen
        self._succeed(book)
        return True

    def _succeed(self, book: Book) -> None:
        state, changed = self.state, book.digest != self._current
        if changed:
            self._follow(book)
            self._current = book.digest
            log.warning("the book was reloaded: registry %s", book.digest[:19])
        self.state = ReloadState((), state.failures, state.reloads + changed, datetime.now(UTC))

    def _fail(self, seen: _Seen, problems: Sequence[Problem]) -> None:
        self._loaded = seen
        self.state = ReloadState(tuple(problems), self.state.failures + 1, self.state.reloads, datetime.now(UTC))
        log.error("the book does not load, the last good one stays: %s", problems[0] if problems else "unknown")

    def _look(self) -> _Seen:
        """Every file by its name and, behind all symbolic links, by what tells one content from another."""
        return tuple(entry for overlay in self._overlays for entry in _entries(Path(overlay)))


def _entries(overlay: Path) -> list[tuple[str, int, int, int, int]]:
    try:
        paths = [overlay] if not overlay.is_dir() else sorted(overlay.iterdir())
    except OSError:
        paths = [overlay]
    found = []
    for path in paths:
        if path != overlay and path.suffix not in _SUFFIXES:
            continue
        try:
            status = os.stat(path)
        except OSError as error:
            found.append((str(path), -(error.errno or 1), 0, 0, 0))
            continue
        found.append((str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return found
