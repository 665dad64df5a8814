"""Pages of the fleet list, and counts by state and group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, case, func, or_, select, true

from preshuffle.api.fleet import (
    STATES,
    GroupJudgement,
    IncompleteReplica,
    Marks,
    PipelineStage,
    ReportedStage,
    State,
    incomplete_replicas,
    read_groups,
    silence_cause,
)
from preshuffle.api.store.listing.fleet_query import COLUMNS, SEVERAL, FleetFilter, FleetOrder, Grouping, Place
from preshuffle.api.store.listing.marks import marks_of
from preshuffle.api.store.listing.ranking import (
    RANKS,
    SPAN,
    is_silenced_key,
    key_in_states,
    ranked,
    since_of_key,
    state_of_key,
)
from preshuffle.api.store.rows import SAME_FACTS, SAME_REPLICA, AnyRow, is_silent, moment, parted, stage_in
from preshuffle.api.store.schema import beats, deployment_labels, deployments, replica_facts, replicas
from preshuffle.registry.values.report import Verdict, worst

_ASCENDING: Final = frozenset({"name", "since", "node", "model", "arch", "engine", "code", "owner", "label"})
"""Orders whose smallest value comes first; empty values come last."""


_FACTS: Final = ("node", "models", "archs", "engines", "sizes", "codes", "cause", "stage", "stages")


@dataclass(frozen=True, slots=True)
class JudgedDeployment:
    """Deployment with its judgements, without its reports.

    Attributes:
        since: since when it is in its state: the earliest of the replicas that are in it.
        pipelines: which stage a number of ``replicas`` stands for, where its replica has stages.
        incomplete: replicas of whose pipeline some stages have not reported.
        groups: judged groups of layers, each with the number of its replica.
        judged_by: the registries that judged, as ``judge_name`` writes them.
        nodes: machines of its replicas, and so on; each value once.
        codes: of its findings, those of the worst replica first.
        cause: of the worst replica; None where nothing is wrong.
    """

    name: str
    revision: int
    created_at: datetime
    replaced_at: datetime
    seen_at: datetime
    verdict: Verdict
    state: State
    since: datetime
    replicas: tuple[int, ...]
    pipelines: dict[int, PipelineStage]
    incomplete: tuple[IncompleteReplica, ...]
    groups: tuple[tuple[int, GroupJudgement], ...]
    judged_by: frozenset[str]
    nodes: tuple[str, ...]
    models: tuple[str, ...]
    archs: tuple[str, ...]
    engines: tuple[str, ...]
    sizes: tuple[str, ...]
    codes: tuple[str, ...]
    cause: str | None
    marks: Marks


@dataclass(frozen=True, slots=True)
class FleetGroup:
    """Deployments that share a value, counted by state; silenced ones apart."""

    value: str
    deployments: int
    states: dict[State, int]
    silenced: int


def fleet_page(
    connection: Connection, limit: int, now: int, chosen: FleetFilter, order: FleetOrder, after: Place | None = None
) -> tuple[list[JudgedDeployment], Place | None]:
    """Return a page of deployments, and its end if more follow.

    Args:
        connection: a transaction.
        limit: size of the page.
        now: milliseconds since the epoch.
        chosen: which deployments.
        order: in which order.
        after: the last place of the page before.
    """
    found = ranked(now, chosen, order).subquery()
    value = _ordered_by(found, order)
    query = select(found.c.name, found.c.key, value.label("place"))
    if chosen.states:
        query = query.where(key_in_states(found.c.key, chosen.states))
    falling = (order.by not in _ASCENDING) is not order.reverse
    if after is not None:
        beyond = value < after[0] if falling else value > after[0]
        query = query.where(or_(beyond, (value == after[0]) & (found.c.name > after[1])))
    query = query.order_by(value.desc() if falling else value.asc(), found.c.name)
    rows = connection.execute(query.limit(limit + 1)).all()
    shown = rows[:limit]
    place = (shown[-1].place, shown[-1].name) if len(rows) > limit else None
    return _judged(connection, shown, now), place


def tally(connection: Connection, now: int, chosen: FleetFilter) -> tuple[dict[State, int], int]:
    """Count deployments by state, and the silenced ones apart.

    The silenced are in no state's count. The filter's states do not count.
    """
    found = ranked(now, replace(chosen, states=()), FleetOrder()).subquery()
    span = found.c.key // SPAN
    rows = connection.execute(select(span.label("span"), func.count().label("number")).group_by(span)).all()
    counts: dict[State, int] = dict.fromkeys(STATES, 0)
    silenced = 0
    for row in rows:
        key = row.span * SPAN
        if is_silenced_key(key):
            silenced += row.number
        else:
            counts[state_of_key(key)] += row.number
    return counts, silenced


def fleet_groups(
    connection: Connection, now: int, chosen: FleetFilter, by: Grouping, label: str = ""
) -> tuple[FleetGroup, ...]:
    """Group deployments by a value, the group with most bad ones first.

    A deployment of several values is in several groups; one without a value is in the group "".
    """
    found = ranked(now, chosen, FleetOrder()).subquery()
    query = select(found.c.name, found.c.key)
    if chosen.states:
        query = query.where(key_in_states(found.c.key, chosen.states))
    keys = {row.name: row.key for row in connection.execute(query)}
    members: dict[str, set[str]] = {}
    for name, value in _values(connection, by, label, keys):
        members.setdefault(value, set()).add(name)
    if unnamed := keys.keys() - set().union(*members.values()):
        members[""] = set(unnamed)
    groups = [_group(value, [keys[name] for name in names]) for value, names in members.items()]
    return tuple(sorted(groups, key=_worst_group_first))


def _ordered_by(found: Any, order: FleetOrder) -> Any:
    """Return the expression that a page is ordered by; empty text comes last, either way."""
    if order.by == "name":
        return found.c.name
    if order.by == "state":
        return found.c.key
    if order.by == "since":
        return SPAN - found.c.key % SPAN
    if order.by == "seen":
        return found.c.value
    last = "" if order.reverse else "\U0010ffff"
    return case((found.c.value == "", last), else_=found.c.value)


def _judged(connection: Connection, ranks: Sequence[AnyRow], now: int) -> list[JudgedDeployment]:
    """Return deployments with their judgements, in the order of the rows."""
    names = [row.name for row in ranks]
    stored = {row.name: row for row in connection.execute(select(deployments).where(deployments.c.name.in_(names)))}
    labels: dict[str, dict[str, str]] = {name: {} for name in names}
    of_names = select(deployment_labels).where(deployment_labels.c.name.in_(names)).order_by(deployment_labels.c.label)
    for row in connection.execute(of_names):
        labels[row.name][row.label] = row.value
    columns = (
        *(
            replicas.c[name]
            for name in ("name", "replica", "replaced_ms", "verdict", "state", "judgement", "judged_by")
        ),
        *(replica_facts.c[name] for name in _FACTS),
        *(beats.c.seen_ms, case((is_silent(now), true()), else_=None).label("silent")),
    )
    query = select(*columns).join(beats, SAME_REPLICA).join(replica_facts, SAME_FACTS)
    members: dict[str, list[AnyRow]] = {name: [] for name in names}
    for row in connection.execute(query.where(replicas.c.name.in_(names)).order_by(replicas.c.replica)):
        members[row.name].append(row)
    return [_deployment(stored[row.name], row.key, members[row.name], labels[row.name], now) for row in ranks]


def _deployment(row: AnyRow, key: int, members: Sequence[AnyRow], labels: dict[str, str], now: int) -> JudgedDeployment:
    worst_first = sorted(members, key=lambda member: -RANKS[member.state])
    state, since = state_of_key(key), moment(since_of_key(key))
    return JudgedDeployment(
        name=row.name,
        revision=row.revision,
        created_at=moment(row.created_ms),
        replaced_at=moment(row.replaced_ms),
        seen_at=moment(max(member.seen_ms for member in members)),
        verdict=worst(member.verdict for member in members),
        state=state,
        since=since,
        replicas=tuple(member.replica for member in members),
        pipelines={member.replica: stage for member in members if (stage := stage_in(member))},
        incomplete=incomplete_replicas(
            ReportedStage(member.replica, stage_in(member), moment(member.replaced_ms), bool(member.silent))
            for member in members
        ),
        groups=tuple((member.replica, group) for member in members for group in read_groups(member.judgement)),
        judged_by=frozenset(member.judged_by for member in members),
        nodes=tuple(dict.fromkeys(member.node for member in worst_first if member.node)),
        models=_once(member.models for member in members),
        archs=_once(member.archs for member in members),
        engines=_once(member.engines for member in members),
        sizes=_once(member.sizes for member in members),
        codes=_once(member.codes for member in worst_first),
        cause=_cause(worst_first, state),
        marks=marks_of(row, labels, state, since, now),
    )


def _cause(members: Sequence[AnyRow], state: State) -> str | None:
    """Return the cause of a deployment's state.

    ``members``: rows of its replicas, the worst first.
    """
    silent = [member.seen_ms for member in members if member.silent]
    if state == "stale" and silent:
        return silence_cause(moment(min(silent)))
    cause: str | None = members[0].cause
    return cause


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for text in texts for value in parted(text)))


def _values(connection: Connection, by: Grouping, label: str, keys: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield deployments' names, each with a value that it has."""
    if by == "state":
        yield from ((name, state_of_key(key)) for name, key in keys.items())
        return
    if by == "label":
        table: Any = deployment_labels
        query = select(table.c.name, table.c.value).where(table.c.label == label)
    elif by == "owner":
        query = select(deployments.c.name, deployments.c.owner.label("value")).where(deployments.c.owner.is_not(None))
    else:
        column = replica_facts.c[COLUMNS[by]]
        query = select(replica_facts.c.name, column.label("value")).where(column.is_not(None), column != "")
    several = by in COLUMNS and COLUMNS[by] in SEVERAL
    for row in connection.execute(query):
        if row.name in keys:
            yield from ((row.name, value) for value in (parted(row.value) if several else (row.value,)))


def _group(value: str, keys: Sequence[int]) -> FleetGroup:
    counts = Counter(state_of_key(key) for key in keys if not is_silenced_key(key))
    states: dict[State, int] = {state: counts[state] for state in reversed(STATES) if counts[state]}
    return FleetGroup(value, len(keys), states, len(keys) - counts.total())


def _worst_group_first(group: FleetGroup) -> tuple[list[int], str]:
    return [-group.states.get(state, 0) for state in reversed(STATES) if state != "ok"], group.value
