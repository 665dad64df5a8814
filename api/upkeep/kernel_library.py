"""The kernel tables that the service answers from: those it was started with, and those uploaded for one AITER each."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Final

from preshuffle.api.answers import Answers
from preshuffle.api.errors import StoreError
from preshuffle.api.store import Store, kernel_store
from preshuffle.api.web import ProblemError, invalid_input
from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.kernels import KernelTables, TableError
from preshuffle.registry.loading import Book
from preshuffle.registry.registry import Registry

MAX_BODY: Final = 16 << 20
"""Bytes that an upload may have."""
MAX_ROWS: Final = 200_000
MAX_FILES: Final = 256
MAX_ALL_ROWS: Final = 1_000_000
"""Rows of all uploads together: they are held in memory."""
ONE_FILE: Final = "tuned_fmoe.csv"
_NAME: Final = re.compile(r"(?:model_configs/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.csv")
_NAMES: Final = ("tuned_fmoe.csv", "model_configs/NAME_tuned_fmoe.csv", "tuned_fhmoe.csv", "tuned_grouped_fmoe.csv")
_LAST: Final = {"tuned_fhmoe.csv": 1, "tuned_grouped_fmoe.csv": 2}


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Tables that were uploaded for one AITER version."""

    version: str
    digest: str
    tables: KernelTables
    uploaded_at: datetime


class KernelLibrary:
    """Takes uploads, keeps them in the store, and makes the service answer from them. Any thread may call."""

    def __init__(self, store: Store, answers: Answers) -> None:
        """Load what was uploaded before.

        Raises:
            StoreError: the store does not answer, or holds tables that this version cannot read.
        """
        self._store = store
        self._answers = answers
        self._started = answers.registry
        self._lock = Lock()
        self.uploads: dict[str, Uploaded] = {}
        self.sync()

    @property
    def started_with(self) -> KernelTables | None:
        """The tables that the service was started with, as their files are now."""
        return self._started.tables

    @property
    def started_digest(self) -> str | None:
        """Their digest."""
        return self._started.tables.digest if self._started.tables is not None else None

    def sync(self) -> bool:
        """Take in what others have uploaded to the store; return whether there was anything.

        Raises:
            StoreError: the store does not answer, or holds tables that this version cannot read.
        """
        with self._lock:
            found = kernel_store.read_all(self._store, tuple(self.uploads))
            for kept in found:
                try:
                    tables = KernelTables.from_bytes(kept.files, aiter=kept.version)
                except TableError as error:
                    text = f"{self._store.name}: the tables uploaded for AITER {kept.version} do not load: {error}"
                    raise StoreError(text) from None
                self._hold(Uploaded(kept.version, kept.digest, tables, kept.uploaded_at))
            if found:
                self._publish()
            return bool(found)

    def rebase(self, book: Book) -> None:
        """Answer from another book from now on, with the same kernel tables."""
        with self._lock:
            self._started = Registry(book, self._started.tables)
            self._publish()

    def retable(self, tables: KernelTables | None) -> None:
        """Answer from other kernel tables in the place of those that the service was started with."""
        with self._lock:
            self._started = Registry(self._started.book, tables)
            self._publish()

    def find(self, version: str) -> Uploaded | None:
        """Return what was uploaded for a version, in whatever spelling."""
        return self.uploads.get(kernel_store.identity_text(version))

    def put(self, version: str, files: Mapping[str, bytes], who: str) -> tuple[Uploaded, bool]:
        """Validate tables completely, store them, and answer from them from now on.

        Returns:
            What is held for the version now, and whether it is new.

        Raises:
            ProblemError: the tables are wrong, or others are already held for the version, or there are too many.
            StoreError: the store does not answer; nothing was changed.
        """
        ordered = _checked(files)
        digest = _digest(ordered)
        try:
            tables = KernelTables.from_bytes(ordered, aiter=version)
            tables.hazards_by(self._started.book.families)  # worked out here, in a thread, and kept
        except TableError as error:
            raise invalid_input([FieldProblem(error.source, error.message)]) from None
        rows = sum(len(loaded.rows) + len(loaded.grouped) for loaded in tables.sets)
        if rows == 0:
            raise invalid_input([FieldProblem(next(iter(ordered)), "holds no row")])
        with self._lock:
            known = self.find(version)
            if known is None:
                known, new = self._add(version, digest, rows, ordered, tables, who), True
            else:
                new = False
        if known.digest != digest:
            raise ProblemError(
                "tables-exist",
                f"AITER {known.version} has tables with the digest {known.digest}, uploaded at "
                f"{known.uploaded_at:%Y-%m-%dT%H:%M:%SZ}; these have {digest}. Tables of a version never change",
            )
        return known, new

    def _add(
        self, version: str, digest: str, rows: int, files: Mapping[str, bytes], tables: KernelTables, who: str
    ) -> Uploaded:
        held = sum(len(item.tables.rows) for item in self.uploads.values())
        if held + rows > MAX_ALL_ROWS:
            text = f"{held} rows are held and {rows} more would be over the {MAX_ALL_ROWS} that may be"
            raise ProblemError("tables-full", text)
        now = time.time_ns() // 1_000_000
        other = kernel_store.put(self._store, version, digest, rows, files, now, who)
        if other is not None:  # another process on the same store was faster
            digest = other
        uploaded = Uploaded(version, digest, tables, datetime.fromtimestamp(now / 1000, UTC))
        if other is None or other == digest:
            self._hold(uploaded)
            self._publish()
        return uploaded

    def _hold(self, uploaded: Uploaded) -> None:
        self.uploads = {**self.uploads, kernel_store.identity_text(uploaded.version): uploaded}

    def _publish(self) -> None:
        uploads = [item.tables for _, item in sorted(self.uploads.items())]  # the same digest in every process
        tables = KernelTables.overlaid(self._started.tables, uploads) if uploads else self._started.tables
        self._answers.replace(Registry(self._started.book, tables))


def _checked(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files in AITER's order.

    Raises:
        ProblemError: a name that AITER would not load, or more than is allowed.
    """
    problems = []
    if not 1 <= len(files) <= MAX_FILES:
        problems.append(FieldProblem("(whole)", f"holds {len(files)} files; valid: 1 to {MAX_FILES}"))
    for name in files:
        if not _NAME.fullmatch(name) or "tuned" not in name or "untuned" in name:
            shown = name if len(name) <= 80 else f"{name[:77]}..."
            problems.append(FieldProblem(repr(shown), "not the name of a kernel table", _NAMES))
    lines = sum(max(data.count(b"\n"), data.count(b"\r")) for data in files.values())
    if lines > MAX_ROWS + 2 * MAX_FILES:
        problems.append(FieldProblem("(whole)", f"has {lines} lines; valid: {MAX_ROWS} rows at most"))
    if problems:
        raise invalid_input(problems)
    return {name: files[name] for name in sorted(files, key=_place)}


def _digest(files: Mapping[str, bytes]) -> str:
    """Return ``sha256:…`` over names and bytes; which version they are for is no part of it."""
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return f"sha256:{digest.hexdigest()}"


def _place(name: str) -> tuple[int, str]:
    """AITER reads the default file first, then ``model_configs`` by name, then those of other kernels."""
    if name == ONE_FILE:
        return 0, name
    return (1 + _LAST.get(name, 0), name)


def read_version(text: str) -> str:
    """Return a version that is one.

    Raises:
        ProblemError: it is none.
    """
    try:
        version_key(text)
    except ValueError as error:
        raise invalid_input([FieldProblem("version", str(error))]) from None
    return text.strip()
