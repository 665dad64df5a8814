"""Stores for tests, on both databases, and what is put into them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import update

from preshuffle.api.fleet.deployments import Receipt, ReplicaReport
from preshuffle.api.fleet.judgement import Judgement, judge
from preshuffle.api.store.schema import beats
from preshuffle.api.store.store import Store
from preshuffle.registry import Registry
from support.service.postgres import new_database
from support.service.server import REPORT


def url_of(kind: str, folder: Path) -> str:
    """Return the URL of a new, empty database."""
    return f"sqlite:///{folder}/store.db" if kind == "sqlite" else new_database()


def report(node: str = "n", **changes: Any) -> ReplicaReport:
    """Return a report of one group."""
    return ReplicaReport.parse({**REPORT, "node": node, **changes})


def put(store: Store, name: str, replica: int = 0, told: ReplicaReport | None = None, **more: Any) -> Receipt:
    """Store a report as the packaged registry judges it."""
    told = told or report()
    return store.put(name, replica, told, judged(ReplicaReport(groups=told.groups).canonical()), **more)


def silence(store: Store, name: str) -> None:
    """Have a deployment last heard of a day ago."""
    with store.transaction(write=True) as connection:
        mine = update(beats).where(beats.c.name == name)
        connection.execute(mine.values(seen_ms=beats.c.seen_ms - 86_400_000))


@lru_cache
def judged(told: str) -> Judgement:
    """Return what the packaged registry finds in a report's JSON."""
    return judge(ReplicaReport.model_validate_json(told), Registry.default())
