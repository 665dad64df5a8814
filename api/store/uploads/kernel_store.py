"""Uploaded kernel tables in the store, deduplicated by content."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import insert, select

from preshuffle.api.store.history import FieldChange, HistoryEntry, record
from preshuffle.api.store.rows import moment
from preshuffle.api.store.schema import kernel_contents, kernel_sets
from preshuffle.api.store.store import Store
from preshuffle.registry.base.versions import release_of, version_identity

_ZLIB_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class StoredTables:
    """Kernel tables of one AITER version, as stored.

    Attributes:
        digest: of the content, without the version.
        files: content by file name, in AITER's order.
    """

    version: str
    digest: str
    rows: int
    files: Mapping[str, bytes]
    uploaded_at: datetime


def identity_text(version: str) -> str:
    """Return a key that all spellings of one AITER version share.

    It is the primary key of rows that stay in the store, so the text may not change between releases.

    Raises:
        InvalidVersionError: not a version.
    """
    key, commit = version_identity(version)
    no_pre = (0, "", 0) if key.is_devrelease and not key.is_postrelease else (2, "", 0)
    pre = (1, *key.pre) if key.pre else no_pre
    post = (0, 0) if key.post is None else (1, key.post)
    dev = (1, 0) if key.dev is None else (0, key.dev)
    return repr(((key.epoch, release_of(key), pre, post, dev), commit))


def read_all(store: Store, known: Collection[str] = ()) -> list[StoredTables]:
    """Return uploads, the oldest first, except those of known identities.

    Raises:
        StoreError: the store does not answer.
    """
    same_digest = kernel_sets.c.digest == kernel_contents.c.digest
    query = select(kernel_sets, kernel_contents).join(kernel_contents, same_digest)
    with store.transaction() as connection:
        unknown = query.where(kernel_sets.c.identity.not_in(known))
        rows = connection.execute(unknown.order_by(kernel_sets.c.created_ms, kernel_sets.c.identity)).all()
    return [
        StoredTables(
            version=row.version,
            digest=row.digest,
            rows=row.rows,
            files=_unpack(row.names, row.body),
            uploaded_at=moment(row.created_ms),
        )
        for row in rows
    ]


def put(
    store: Store, version: str, digest: str, rows: int, files: Mapping[str, bytes], now_ms: int, who: str
) -> str | None:
    """Store tables for a version that has none.

    Returns:
        None if they were stored; otherwise the digest of the tables that the version has already.

    Raises:
        StoreError: the store does not answer; nothing was changed.
    """
    identity = identity_text(version)
    with store.changing("changes", "tables") as connection:
        existing = connection.execute(select(kernel_sets.c.digest).where(kernel_sets.c.identity == identity)).scalar()
        if existing is not None:
            return str(existing)
        if connection.execute(select(kernel_contents.c.rows).where(kernel_contents.c.digest == digest)).first() is None:
            names = json.dumps([[name, len(data)] for name, data in files.items()])
            body = zlib.compress(b"".join(files.values()), _ZLIB_LEVEL)
            connection.execute(insert(kernel_contents).values(digest=digest, rows=rows, names=names, body=body))
        values = {"identity": identity, "version": version, "digest": digest, "created_ms": now_ms}
        connection.execute(insert(kernel_sets).values(**values))
        changes = [FieldChange(field="digest", after=digest), FieldChange(field="rows", after=rows)]
        record(connection, now_ms, [HistoryEntry(who, "tables", version, changes=changes)])
    return None


def _unpack(names: str, body: bytes) -> dict[str, bytes]:
    data, files, start = zlib.decompress(body), {}, 0
    for name, size in json.loads(names):
        files[str(name)] = data[start : start + size]
        start += size
    return files
