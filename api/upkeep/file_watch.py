"""The files that the service was started with, watched: what loads is answered from, what does not changes nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from preshuffle.api.table_files import load_tables, table_places
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import BookError, Problem
from preshuffle.registry.kernels import Families, KernelTables, TableError
from preshuffle.registry.loading import Book

log = logging.getLogger("preshuffle.api")

_BOOKS: Final = (".yaml", ".yml")
_TABLES: Final = (".csv",)
_Seen = tuple[tuple[str, int, int, int, int], ...]
Follow = Callable[[], None]
"""Makes the service answer from what was loaded."""


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


class UnloadableError(Exception):
    """Files do not load."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep what is wrong with them."""
        super().__init__(*problems)
        self.problems = tuple(problems)


class Watcher:
    """Looks at files whenever it is asked to, by one thread at a time."""

    def __init__(self, what: str, look: Callable[[], _Seen], load: Callable[[], Follow | None]) -> None:
        """Watch what was loaded already.

        Args:
            what: for the log.
            look: tells one content of the files from another.
            load: loads them; returns None where they say what is answered from already. Raises UnloadableError.
        """
        self.state = ReloadState()
        self._what = what
        self._look = look
        self._load = load
        self._loaded = self._before = look()

    def poll(self) -> bool:
        """Load what has changed once it has stayed the same for two looks; return whether anything was tried.

        Whoever writes a file does not do so at once: a look between would see half of it.
        """
        seen = self._look()
        settled, self._before = seen == self._before, seen
        if seen == self._loaded or not settled:
            return False
        try:
            follow = self._load()
        except UnloadableError as error:
            if self._look() == seen:
                self._fail(seen, error.problems)
            return True
        if self._look() != seen:
            return False  # it changed while it was read
        state = self.state
        if follow is not None:
            follow()
            log.warning("%s loaded anew", self._what)
        self._loaded = seen
        self.state = ReloadState((), state.failures, state.reloads + (follow is not None), datetime.now(UTC))
        return True

    def _fail(self, seen: _Seen, problems: Sequence[Problem]) -> None:
        self._loaded = seen
        self.state = ReloadState(tuple(problems), self.state.failures + 1, self.state.reloads, datetime.now(UTC))
        text = problems[0] if problems else "unknown"
        log.error("%s not loaded, the last that were good stay: %s", self._what, text)


@dataclass(frozen=True, slots=True)
class Watching:
    """Everything that is watched."""

    book: Watcher
    tables: Watcher

    def poll(self) -> bool:
        """Look at all of it; return whether anything was tried."""
        return any([self.book.poll(), self.tables.poll()])


def watch_book(overlays: Sequence[str], follow: Callable[[Book], None], current: Callable[[], str]) -> Watcher:
    """Watch overlays: folders or files, as ``Registry.load`` takes them.

    Args:
        overlays: where they are.
        follow: called with a new book that has loaded.
        current: returns the digest of the book that is answered from.
    """

    def load() -> Follow | None:
        try:
            book = Registry.load(overlays).book
        except BookError as error:
            raise UnloadableError(error.problems) from None
        return None if book.digest == current() else lambda: follow(book)

    return Watcher("the book was", lambda: _look(map(Path, overlays), _BOOKS), load)


def watch_tables(
    wanted: Sequence[str],
    follow: Callable[[KernelTables | None], None],
    current: Callable[[], str | None],
    families: Callable[[], Families],
) -> Watcher:
    """Watch kernel tables, as ``Settings.tables`` names them.

    Args:
        wanted: where they are.
        follow: called with new tables that have loaded.
        current: returns the digest of those that the service was started with, or has loaded since.
        families: returns the kernel families that are known now.
    """

    def load() -> Follow | None:
        try:
            tables = load_tables(wanted)
            _ = tables and tables.hazards_by(families())  # worked out here, where nobody waits for it
        except TableError as error:
            raise UnloadableError([Problem(error.file, error.line or 1, 1, error.message)]) from None
        except OSError as error:
            raise UnloadableError([Problem(str(error.filename), 1, 1, str(error.strerror))]) from None
        return None if (tables and tables.digest) == current() else lambda: follow(tables)

    places = table_places(wanted)
    return Watcher("kernel tables were", lambda: _look(places, _TABLES), load)


def _look(places: Iterable[Path], suffixes: tuple[str, ...]) -> _Seen:
    """Every file by its name and, behind all symbolic links, by what tells one content from another."""
    return tuple(entry for place in places for entry in _entries(place, suffixes))


def _entries(place: Path, suffixes: tuple[str, ...]) -> list[tuple[str, int, int, int, int]]:
    try:
        paths = sorted(_files(place)) if place.is_dir() else [place]
    except OSError:
        paths = [place]
    found = []
    for path in paths:
        if path != place and path.suffix not in suffixes:
            continue
        try:
            status = os.stat(path)
        except OSError as error:
            found.append((str(path), -(error.errno or 1), 0, 0, 0))
            continue
        found.append((str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def _files(folder: Path) -> Iterable[Path]:
    """What lies in a folder and in ``model_configs``, where AITER keeps tables of models."""
    inner = folder / "model_configs"
    return [*folder.iterdir(), *(inner.iterdir() if inner.is_dir() else ())]
