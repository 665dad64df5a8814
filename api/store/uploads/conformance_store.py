"""Conformance reports in the store, one per AITER build."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from pydantic import Field
from sqlalchemy import Connection, func, insert, or_, select, update

from preshuffle.api.errors import QuotaError
from preshuffle.api.store.history import FieldChange, HistoryEntry, record
from preshuffle.api.store.rows import AnyRow, moment, now_ms
from preshuffle.api.store.schema import conformance
from preshuffle.api.store.store import Store
from preshuffle.api.store.uploads.kernel_store import identity_text
from preshuffle.registry.base.frozen import Frozen
from preshuffle.registry.base.versions import InvalidVersionError
from preshuffle.registry.values.conformance import ConformanceReport

MAX_REPORTS: Final = 1000
"""Builds that may have a report."""
_ZLIB_LEVEL: Final = 6
DigestCheck = Callable[[str | None], None]
"""Raises unless the digest of the stored report (None: there is none) is as the caller expects."""


class StoredConformance(Frozen):
    """What the store knows of a build's conformance report."""

    build: str = Field(description="of AITER: version, with the commit where it is known; else commit or digest")
    version: str | None = Field(description="of AITER; null for a checkout that does not say it")
    verdict: str = Field(description="agrees, disagrees or not known")
    summary: str = Field(description="counts by kind of claim")
    digest: str = Field(description="of the report")
    registry_digest: str = Field(description="of the book that was compared")
    stored_at: datetime


def put(store: Store, report: ConformanceReport, who: str, check: DigestCheck) -> str | None:
    """Store a build's report in place of its last one.

    Returns:
        The digest of the report that was there before, None if there was none.

    Raises:
        QuotaError: too many builds have one.
        StoreError: the store does not answer or its disk is full; nothing was changed.
    """
    build, now = report.aiter.id, now_ms()
    summary = report.summary()
    values = {
        "version": report.aiter.version,
        "identity": _identity(report.aiter.version) if report.aiter.version else None,
        "verdict": report.verdict,
        "summary": summary,
        "digest": report.digest,
        "registry": report.registry_digest,
        "body": zlib.compress(report.model_dump_json().encode(), _ZLIB_LEVEL),
        "stored_ms": now,
    }
    with store.changing("changes") as connection:
        before = connection.execute(select(conformance.c.digest).where(conformance.c.build == build)).scalar()
        check(before)
        if before == report.digest:
            return str(before)
        if before is None:
            _refuse_too_many(connection)
            connection.execute(insert(conformance).values(build=build, **values))
        else:
            connection.execute(update(conformance).where(conformance.c.build == build).values(**values))
        change = FieldChange(field="summary", after=f"{report.verdict}: {summary}")
        record(connection, now, [HistoryEntry(who, "conformance", build, changes=[change])])
    return None if before is None else str(before)


def get(store: Store, build: str) -> ConformanceReport | None:
    """Return a build's report, or None.

    Raises:
        StoreError: the store does not answer.
    """
    with store.transaction() as connection:
        body = connection.execute(select(conformance.c.body).where(conformance.c.build == build)).scalar()
    return None if body is None else ConformanceReport.model_validate_json(zlib.decompress(body))


def listing(store: Store) -> tuple[StoredConformance, ...]:
    """Return what is known of every build, by name.

    Raises:
        StoreError: the store does not answer.
    """
    with store.transaction() as connection:
        rows = connection.execute(select(*_SHOWN).order_by(conformance.c.build)).all()
    return tuple(map(_stored, rows))


def find(store: Store, builds: Iterable[str]) -> Mapping[str, StoredConformance | None]:
    """Return builds' reports, found by name or equal version.

    Raises:
        StoreError: the store does not answer.
    """
    with store.transaction() as connection:
        return {build: _find(connection, build) if "\0" not in build else None for build in dict.fromkeys(builds)}


_SHOWN: Final = tuple(column for column in conformance.c if column.name not in ("body", "identity"))


def _find(connection: Connection, build: str) -> StoredConformance | None:
    identity = _identity(build)
    same = conformance.c.build == build[:128]
    if identity is not None:
        same = or_(same, conformance.c.identity == identity)
    newest = select(*_SHOWN).where(same).order_by(conformance.c.stored_ms.desc()).limit(1)
    row = connection.execute(newest).first()
    return None if row is None else _stored(row)


def _stored(row: AnyRow) -> StoredConformance:
    return StoredConformance(
        build=row.build,
        version=row.version,
        verdict=row.verdict,
        summary=row.summary,
        digest=row.digest,
        registry_digest=row.registry,
        stored_at=moment(row.stored_ms),
    )


def _identity(version: str) -> str | None:
    try:
        return identity_text(version)
    except InvalidVersionError:
        return None


def _refuse_too_many(connection: Connection) -> None:
    count = connection.execute(select(func.count()).select_from(conformance)).scalar() or 0
    if count >= MAX_REPORTS:
        raise QuotaError(f"{count} AITER builds have a conformance report; the limit is {MAX_REPORTS}")
