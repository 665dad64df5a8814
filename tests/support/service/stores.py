"""Stores for tests on both databases, and reports to put into them."""

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


def put(store: Store, name: str, replica: int = 0, reported: ReplicaReport | None = None, **more: Any) -> Receipt:
    """Store a report with the packaged registry's judgement."""
    reported = reported or report()
    return store.put(name, replica, reported, judged(ReplicaReport(groups=reported.groups).canonical()), **more)


def silence(store: Store, name: str) -> None:
    """Set a deployment's last heartbeats back by one day."""
    with store.transaction(write=True) as connection:
        heartbeat = update(beats).where(beats.c.name == name)
        connection.execute(heartbeat.values(seen_ms=beats.c.seen_ms - 86_400_000))


@lru_cache
def judged(report_json: str) -> Judgement:
    """Return the packaged registry's judgement of a report's JSON."""
    return judge(ReplicaReport.model_validate_json(report_json), Registry.default())
