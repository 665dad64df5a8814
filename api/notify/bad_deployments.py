"""Deployments in a bad state, for metrics: worst first, silent ones apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from typing import Final

from sqlalchemy import Connection, and_, or_, select, true

from preshuffle.api.errors import StoreError
from preshuffle.api.fleet import Marks, State, state_rank, worst_state
from preshuffle.api.notify.severity import BAD, severity_of
from preshuffle.api.store import (
    AnyRow,
    Store,
    beats,
    deployment_labels,
    deployments,
    marks_of,
    moment,
    now_ms,
    replica_facts,
    replicas,
)

_SAME_BEAT: Final = and_(beats.c.name == replicas.c.name, beats.c.replica == replicas.c.replica)
_SAME_FACTS: Final = and_(replica_facts.c.name == replicas.c.name, replica_facts.c.replica == replicas.c.replica)
_COLUMNS: Final = (
    *(deployments.c[name] for name in deployments.c.keys() if name != "name"),
    replicas.c.name,
    replicas.c.replica,
    replicas.c.state,
    beats.c.silent,
    beats.c.seen_ms,
    beats.c.ttl_ms,
    replica_facts.c.node,
    replica_facts.c.codes,
    replica_facts.c.since_ms,
)


@dataclass(frozen=True, slots=True)
class BadDeployment:
    """Deployment in a bad state, by its worst replica.

    Attributes:
        name: of the deployment.
        state: as lists show it.
        replica: the worst one, before others one that still sends heartbeats.
        node: its machine; empty where unknown.
        code: its gravest finding; empty where it has none.
        silent: whether every replica in that state is silent; nobody is served by it any more.
        seen_s: when the last of its bad replicas was heard of, in seconds since 1970.
        muted_until_ms: until when an operator wants no alert; 0 where nobody said so.
        owner: who looks after it.
        labels: of the deployment.
    """

    name: str
    state: State
    replica: int
    node: str
    code: str
    silent: bool
    seen_s: float
    muted_until_ms: float = 0
    owner: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def muted(self) -> bool:
        """Whether an operator wants no alert now."""
        return now_ms() < self.muted_until_ms

    @property
    def calls(self) -> bool:
        """Whether it must call somebody: it serves wrong answers, unmuted."""
        return severity_of(self.state) == "critical" and not self.silent and not self.muted


class BadDeployments:
    """Lists deployments in a bad state; cached until the store changes."""

    def __init__(self, store: Store) -> None:
        """Read from the store."""
        self._store = store
        self._found: tuple[dict[str, int], tuple[BadDeployment, ...]] | None = None

    def find(self) -> tuple[BadDeployment, ...]:
        """Return all, those that call somebody first, then the worst.

        Raises:
            StoreError: the store does not answer.
        """
        counters = self._store.counters()
        if self._found is None or self._found[0] != counters:
            with self._store.transaction() as connection:
                self._found = (counters, tuple(_read(connection, now_ms())))
        return tuple(sorted(self._found[1], key=lambda bad: (not bad.calls, -state_rank(bad.state), bad.name)))


def _read(connection: Connection, now: int) -> Iterable[BadDeployment]:
    joined = select(*_COLUMNS).join(beats, _SAME_BEAT).join(replica_facts, _SAME_FACTS)
    joined = joined.join(deployments, deployments.c.name == replicas.c.name)
    is_bad = or_(replicas.c.state.in_(BAD), beats.c.silent.is_(true()))
    rows = connection.execute(joined.where(is_bad).order_by(replicas.c.name, replicas.c.replica)).all()
    labels: defaultdict[str, dict[str, str]] = defaultdict(dict)
    names = select(replicas.c.name).join(beats, _SAME_BEAT).where(is_bad)
    for row in connection.execute(select(deployment_labels).where(deployment_labels.c.name.in_(names))):
        labels[row.name][row.label] = row.value
    for name, members in groupby(rows, key=lambda row: row.name):
        yield _bad(name, list(members), labels.get(name, {}), now)


def _bad(name: str, members: Sequence[AnyRow], labels: Mapping[str, str], now: int) -> BadDeployment:
    state = worst_state(_shown(row) for row in members)
    worst = sorted((row for row in members if _shown(row) == state), key=lambda row: row.silent)
    codes = worst[0].codes.split()
    since = min(row.seen_ms + row.ttl_ms if row.silent and row.ttl_ms else row.since_ms for row in worst)
    marks = marks_of(worst[0], labels, state, moment(since), now)
    return BadDeployment(
        name=name,
        state=state,
        replica=worst[0].replica,
        node=worst[0].node or "",
        code=codes[0] if codes else "",
        silent=worst[0].silent,
        seen_s=max(row.seen_ms for row in worst) / 1000,
        muted_until_ms=_muted_until(marks),
        owner=marks.owner or "",
        labels=labels,
    )


def _muted_until(marks: Marks) -> float:
    if marks.acknowledgement is not None:
        return inf
    return marks.silence.until.timestamp() * 1000 if marks.silence is not None else 0


def _shown(row: AnyRow) -> State:
    states: list[State] = [row.state, "stale"] if row.silent else [row.state]
    return worst_state(states)


def is_silenced(store: Store, name: str) -> bool:
    """Whether a deployment is silenced; False without an answer."""
    query = select(deployments.c.silenced_until_ms).where(deployments.c.name == name)
    try:
        with store.transaction() as connection:
            return (connection.execute(query).scalar() or 0) > now_ms()
    except StoreError:
        return False
