"""Quota of stored replicas and bytes, per token and in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, update

from preshuffle.api.errors import QuotaError
from preshuffle.api.store.schema import usage

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of what reports may take.

    Attributes:
        replicas: stored replicas in all.
        bytes: of their reports and judgements in all.
        token_replicas: stored replicas that one token reported last.
        token_bytes: of these replicas' reports and judgements.
    """

    replicas: int = 100_000
    bytes: int = 1024 * _MIB
    token_replicas: int = 50_000
    token_bytes: int = 512 * _MIB


def charge(connection: Connection, quota: Quota, name: str, replica: int, owner: str, size: int) -> None:
    """Record a replica's size and owner, within the quota.

    A report that takes no more than the one before is always allowed.

    Args:
        connection: a write transaction, in which the replica is stored.
        quota: the limits.
        name: of the deployment.
        replica: its number.
        owner: the token's name; empty without tokens, when only the limits in all count.
        size: bytes of report and judgement.

    Raises:
        QuotaError: too many replicas or bytes.
    """
    key = (usage.c.name == name) & (usage.c.replica == replica)
    before = connection.execute(select(usage.c.owner, usage.c.bytes).where(key)).one_or_none()
    values = {"owner": owner, "bytes": size}
    if before is None:
        connection.execute(insert(usage).values(name=name, replica=replica, **values))
    else:
        connection.execute(update(usage).where(key).values(**values))
    new, grown = before is None, before is None or size > before.bytes
    _check(connection, None, (quota.replicas, new), (quota.bytes, grown))
    if owner:
        taken_over = before is None or before.owner != owner
        limits = (quota.token_replicas, new or taken_over), (quota.token_bytes, grown or taken_over)
        _check(connection, owner, *limits)


def _check(connection: Connection, owner: str | None, replicas: tuple[int, bool], size: tuple[int, bool]) -> None:
    """Compare what is stored with the limits that matter."""
    if not (replicas[1] or size[1]):
        return
    total: Any = select(func.count(), func.coalesce(func.sum(usage.c.bytes), 0)).select_from(usage)
    if owner is not None:
        total = total.where(usage.c.owner == owner)
    number, stored = connection.execute(total).one()
    whose = "stored" if owner is None else f"of token {owner!r}"
    for found, (limit, matters), unit in ((number, replicas, "replicas"), (stored, size, "bytes of reports")):
        if matters and found > limit:
            raise QuotaError(
                f"this would make {found} {unit} {whose}; valid: {limit} at most. Nothing was changed; "
                "DELETE deployments that are gone, or raise the quota"
            )
