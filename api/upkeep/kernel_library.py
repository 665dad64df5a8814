"""Library of kernel tables: initial files, and uploads per AITER version.

Registries that answer are built here: the initial tables with all uploads on top, each for exactly its version.
"""

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
from preshuffle.registry import Registry
from preshuffle.registry.base.errors import FieldProblem
from preshuffle.registry.base.versions import version_key
from preshuffle.registry.kernels import KernelTables, TableError
from preshuffle.registry.loading import Book

MAX_BODY: Final = 16 << 20
"""Largest upload in bytes."""
MAX_ROWS: Final = 200_000
"""Largest upload in rows."""
MAX_FILES: Final = 256
"""Largest upload in files."""
MAX_ALL_ROWS: Final = 1_000_000
"""Most rows of all uploads together, fused-MoE and grouped: they stay in memory."""
ONE_FILE: Final = "tuned_fmoe.csv"
_NAME_PATTERN: Final = re.compile(r"(?:model_configs/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.csv")
_VALID_NAMES: Final = (
    "tuned_fmoe.csv",
    "model_configs/NAME_tuned_fmoe.csv",
    "tuned_fhmoe.csv",
    "tuned_grouped_fmoe.csv",
)
_FILE_ORDER: Final = {"tuned_fhmoe.csv": 1, "tuned_grouped_fmoe.csv": 2}


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Kernel tables uploaded for one AITER version."""

    version: str
    digest: str
    tables: KernelTables
    uploaded_at: datetime


class KernelLibrary:
    """Thread-safe library of kernel tables: validates uploads, stores and publishes them.

    Attributes:
        uploads: by the identity of their version, see ``kernel_store.identity_text``; replaced as a whole, so that a
            reader needs no lock.
    """

    def __init__(self, store: Store, answers: Answers) -> None:
        """Load the uploads that the store holds.

        Raises:
            StoreError: the store does not answer, or holds tables that this version cannot read.
        """
        self._store = store
        self._answers = answers
        self._initial = answers.registry
        self._lock = Lock()
        self.uploads: dict[str, Uploaded] = {}
        self.sync()

    @property
    def initial_tables(self) -> KernelTables | None:
        """Tables named at the start, as their files are now; without uploads."""
        return self._initial.tables

    @property
    def initial_digest(self) -> str | None:
        """Digest of the tables named at the start."""
        return self._initial.tables.digest if self._initial.tables is not None else None

    def sync(self) -> bool:
        """Load uploads that other processes stored; return whether there were any.

        Raises:
            StoreError: the store does not answer, or holds tables that this version cannot read.
        """
        with self._lock:
            missing = kernel_store.read_all(self._store, tuple(self.uploads))
            for stored in missing:
                try:
                    tables = KernelTables.from_bytes(stored.files, aiter=stored.version)
                except TableError as error:
                    message = f"{self._store.name}: the tables uploaded for AITER {stored.version} do not load: {error}"
                    raise StoreError(message) from None
                self._add(Uploaded(stored.version, stored.digest, tables, stored.uploaded_at))
            if missing:
                self._publish()
            return bool(missing)

    def replace_book(self, book: Book) -> None:
        """Answer from another book, with the same kernel tables."""
        with self._lock:
            self._initial = Registry(book, self._initial.tables)
            self._publish()

    def replace_tables(self, tables: KernelTables | None) -> None:
        """Replace the initial tables; uploads stay on top."""
        with self._lock:
            self._initial = Registry(self._initial.book, tables)
            self._publish()

    def find(self, version: str) -> Uploaded | None:
        """Return the upload for an AITER version in any spelling."""
        return self.uploads.get(kernel_store.identity_text(version))

    def put(self, version: str, files: Mapping[str, bytes], who: str) -> tuple[Uploaded, bool]:
        """Validate tables completely, store and publish them.

        Returns:
            The upload that the version has now, and whether it is new.

        Raises:
            ProblemError: the tables are wrong, or the version has others already, or there are too many rows.
            StoreError: the store does not answer; nothing was changed.
        """
        ordered = _checked(files)
        digest = _digest(ordered)
        try:
            tables = KernelTables.from_bytes(ordered, aiter=version)
            tables.hazards_by(self._initial.book.families)  # computed here, in a worker thread; the tables cache it
        except TableError as error:
            raise invalid_input([FieldProblem(error.source, error.message)]) from None
        if tables.row_count == 0:
            raise invalid_input([FieldProblem(next(iter(ordered)), "holds no row")])
        with self._lock:
            uploaded = self.find(version)
            new = uploaded is None
            if uploaded is None:
                uploaded = self._store_upload(version, digest, ordered, tables, who)
        if uploaded.digest != digest:
            raise ProblemError(
                "tables-exist",
                f"AITER {uploaded.version} has tables with the digest {uploaded.digest}, uploaded at "
                f"{uploaded.uploaded_at:%Y-%m-%dT%H:%M:%SZ}; these have {digest}. Tables of a version never change",
            )
        return uploaded, new

    def _store_upload(
        self, version: str, digest: str, files: Mapping[str, bytes], tables: KernelTables, who: str
    ) -> Uploaded:
        rows, loaded = tables.row_count, sum(upload.tables.row_count for upload in self.uploads.values())
        if loaded + rows > MAX_ALL_ROWS:
            detail = f"{loaded} rows are uploaded; {rows} more would exceed the limit of {MAX_ALL_ROWS}"
            raise ProblemError("tables-full", detail)
        now = time.time_ns() // 1_000_000
        existing = kernel_store.put(self._store, version, digest, rows, files, now, who)
        uploaded = Uploaded(version, existing or digest, tables, datetime.fromtimestamp(now / 1000, UTC))
        if uploaded.digest == digest:  # otherwise another process on this store was faster, with other tables
            self._add(uploaded)
            self._publish()
        return uploaded

    def _add(self, uploaded: Uploaded) -> None:
        self.uploads = {**self.uploads, kernel_store.identity_text(uploaded.version): uploaded}

    def _publish(self) -> None:
        uploads = [upload.tables for _, upload in sorted(self.uploads.items())]  # one digest in every process
        tables = KernelTables.overlaid(self._initial.tables, uploads) if uploads else self._initial.tables
        self._answers.replace(Registry(self._initial.book, tables))


def read_version(text: str) -> str:
    """Return a validated AITER version, without surrounding space.

    Raises:
        ProblemError: the text is no version.
    """
    try:
        version_key(text)
    except ValueError as error:
        raise invalid_input([FieldProblem("version", str(error))]) from None
    return text.strip()


def _checked(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files in AITER's order.

    Raises:
        ProblemError: a name that AITER would not load, or more files or rows than are allowed.
    """
    problems = []
    if not 1 <= len(files) <= MAX_FILES:
        problems.append(FieldProblem("(whole)", f"holds {len(files)} files; valid: 1 to {MAX_FILES}"))
    for name in files:
        if not _NAME_PATTERN.fullmatch(name) or "tuned" not in name or "untuned" in name:
            shown = name if len(name) <= 80 else f"{name[:77]}..."
            problems.append(FieldProblem(repr(shown), "not the name of a kernel table", _VALID_NAMES))
    lines = sum(max(data.count(b"\n"), data.count(b"\r")) for data in files.values())
    if lines > MAX_ROWS + 2 * MAX_FILES:
        problems.append(FieldProblem("(whole)", f"has {lines} lines; valid: {MAX_ROWS} rows at most"))
    if problems:
        raise invalid_input(problems)
    return {name: files[name] for name in sorted(files, key=_load_order)}


def _load_order(name: str) -> tuple[int, str]:
    """Return a sort key for AITER's order of files.

    The default file, then ``model_configs`` by name, then those of other kernels.
    """
    if name == ONE_FILE:
        return 0, name
    return (1 + _FILE_ORDER.get(name, 0), name)


def _digest(files: Mapping[str, bytes]) -> str:
    """Return ``sha256:…`` over names and bytes, without the AITER version."""
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return f"sha256:{digest.hexdigest()}"
