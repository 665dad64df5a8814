"""Reload of book and kernel-table files when they change.

Files that load replace what the service answers from; files that do not load change nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Final

from preshuffle.api.overlay_files import filled_overlays
from preshuffle.api.table_files import load_tables, table_places
from preshuffle.api.web import Tokens, read_tokens
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import BookError, Problem
from preshuffle.registry.kernels import Families, KernelTables, TableError
from preshuffle.registry.loading import Book

log = logging.getLogger("preshuffle.api")

_BOOK_SUFFIXES: Final = (".yaml", ".yml")
_TABLE_SUFFIXES: Final = (".csv",)
_Snapshot = tuple[tuple[str, int, int, int, int], ...]
Publish = Callable[[], None]
"""Makes the service answer from what was loaded."""


@dataclass(frozen=True, slots=True)
class ReloadState:
    """Result of the last reload, with counters.

    Attributes:
        problems: of the files as they are now; empty if the service answers from them.
        failures: failed reloads since the start.
        reloads: successful reloads since the start.
        at: when this last changed.
    """

    problems: tuple[Problem, ...] = ()
    failures: int = 0
    reloads: int = 0
    at: datetime | None = None


class UnloadableError(Exception):
    """Files that do not load, with their problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Store the problems."""
        super().__init__(*problems)
        self.problems = tuple(problems)


class Watcher:
    """Polls files for changes and reloads them. Thread-safe."""

    def __init__(
        self,
        subject: str,
        snapshot: Callable[[], _Snapshot],
        load: Callable[[], Publish | None],
        *,
        settles: bool = True,
    ) -> None:
        """Watch files that are loaded already.

        Args:
            subject: beginning of log lines, with a verb in the past ("the book was").
            snapshot: returns what differs whenever the files' content differs.
            load: loads them; returns None if the service answers from this content already. Raises UnloadableError.
            settles: whether two polls must see the same content before it is loaded. Writing a file takes time: a poll
                in between would read half of it.
        """
        self.state = ReloadState()
        self._subject = subject
        self._snapshot = snapshot
        self._load = load
        self._settles = settles
        self._lock = Lock()
        self._loaded = self._previous = snapshot()

    def has_changed(self) -> bool:
        """Whether the files differ from those loaded last; reads no content."""
        return self._snapshot() != self._loaded

    def poll(self) -> bool:
        """Reload changed files; return whether it was tried."""
        with self._lock:
            return self._poll()

    def _poll(self) -> bool:
        snapshot = self._snapshot()
        settled, self._previous = snapshot == self._previous or not self._settles, snapshot
        if snapshot == self._loaded or not settled:
            return False
        try:
            publish = self._load()
        except UnloadableError as error:
            if self._snapshot() == snapshot:
                self._fail(snapshot, error.problems)
            return True
        if self._snapshot() != snapshot:
            return False  # it changed while it was read
        state = self.state
        if publish is not None:
            publish()
            log.info("%s reloaded", self._subject)
        self._loaded = snapshot
        self.state = ReloadState((), state.failures, state.reloads + (publish is not None), datetime.now(UTC))
        return True

    def _fail(self, snapshot: _Snapshot, problems: Sequence[Problem]) -> None:
        self._loaded = snapshot
        self.state = ReloadState(tuple(problems), self.state.failures + 1, self.state.reloads, datetime.now(UTC))
        problem = problems[0] if problems else "unknown"
        log.error("%s not reloaded, the last valid version stays: %s", self._subject, problem)


@dataclass(frozen=True, slots=True)
class Watching:
    """Watchers of the book, of kernel tables and of tokens."""

    book: Watcher
    tables: Watcher
    tokens: Watcher

    def poll(self) -> bool:
        """Poll all watchers; return whether a reload was tried."""
        return any([self.book.poll(), self.tables.poll(), self.tokens.poll()])


def watch_book(overlays: Sequence[str], publish: Callable[[Book], None], current: Callable[[], str]) -> Watcher:
    """Return a watcher of the book's overlays.

    Args:
        overlays: folders or files, as ``Registry.load`` takes them; folders may be empty.
        publish: called with a new book that has loaded.
        current: returns the digest of the book that the service answers from.
    """

    def load() -> Publish | None:
        try:
            book = Registry.load(filled_overlays(overlays)).book
        except BookError as error:
            raise UnloadableError(error.problems) from None
        return None if book.digest == current() else lambda: publish(book)

    return Watcher("the book was", lambda: _snapshot(map(Path, overlays), _BOOK_SUFFIXES), load)


def watch_tables(
    names: Sequence[str],
    publish: Callable[[KernelTables | None], None],
    current: Callable[[], str | None],
    families: Callable[[], Families],
) -> Watcher:
    """Return a watcher of kernel tables.

    Args:
        names: files and folders, as in ``Settings.tables``.
        publish: called with new tables that have loaded.
        current: returns the digest of the tables that these files gave last.
        families: returns the kernel families of the current book.
    """

    def load() -> Publish | None:
        try:
            tables = load_tables(names)
            _ = tables and tables.hazards_by(families())  # computed here, where no request waits; the tables cache it
        except TableError as error:
            raise UnloadableError([Problem(error.file, error.line or 1, 1, error.message)]) from None
        except OSError as error:
            raise UnloadableError([Problem(str(error.filename), 1, 1, str(error.strerror))]) from None
        return None if (tables and tables.digest) == current() else lambda: publish(tables)

    places = table_places(names)
    return Watcher("kernel tables were", lambda: _snapshot(places, _TABLE_SUFFIXES), load)


def watch_tokens(name: str | None, publish: Callable[[Tokens], None]) -> Watcher:
    """Return a watcher of the tokens file; a change counts at once.

    Args:
        name: of the file; None where no tokens are needed.
        publish: called with tokens that have loaded. The file may revoke all of them (``tokens: []``).
    """

    def load() -> Publish | None:
        tokens, problems = read_tokens(name or "", may_be_empty=True)
        if problems:
            raise UnloadableError(problems)
        return lambda: publish(tokens)

    places = [Path(name)] if name else []
    return Watcher("the tokens were", lambda: _snapshot(places, ()), load, settles=False)


def _snapshot(places: Iterable[Path], suffixes: tuple[str, ...]) -> _Snapshot:
    """Return name, device, inode, size and mtime (ns) per file.

    Symbolic links are followed.
    """
    return tuple(entry for place in places for entry in _entries(place, suffixes))


def _entries(place: Path, suffixes: tuple[str, ...]) -> list[tuple[str, int, int, int, int]]:
    try:
        paths = sorted(_files(place)) if place.is_dir() else [place]
    except OSError:
        paths = [place]
    entries = []
    for path in paths:
        if path != place and path.suffix not in suffixes:
            continue
        try:
            status = os.stat(path)
        except OSError as error:
            entries.append((str(path), -(error.errno or 1), 0, 0, 0))
            continue
        entries.append((str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return entries


def _files(folder: Path) -> Iterable[Path]:
    """List a folder and its ``model_configs``, where AITER has tables per model."""
    inner = folder / "model_configs"
    return [*folder.iterdir(), *(inner.iterdir() if inner.is_dir() else ())]
