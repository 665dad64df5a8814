"""SQL of the fleet list: shown states of deployments, and conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    case,
    false,
    func,
    literal,
    or_,
    select,
    true,
)

from preshuffle.api.fleet import STAGE_STEP, STATES, State
from preshuffle.api.store.listing.fleet_query import COLUMNS, SEVERAL, FleetFilter, FleetOrder
from preshuffle.api.store.rows import SAME_FACTS, SAME_REPLICA, is_silent
from preshuffle.api.store.schema import beats, deployment_labels, deployments, replica_facts, replicas

RANKS: Final[dict[str, int]] = {state: rank for rank, state in enumerate(STATES)}
SPAN: Final = 1 << 42
"""More than the milliseconds since the epoch."""
_UNSILENCED: Final = 1 << 46
"""More than the key of any state."""


def state_of_key(key: int) -> State:
    """Return the state in a key."""
    return list(STATES)[(key % _UNSILENCED) // SPAN]


def since_of_key(key: int) -> int:
    """Return since when a deployment is in its state, in milliseconds."""
    return SPAN - key % SPAN


def is_silenced_key(key: int) -> bool:
    """Whether a silence lasts."""
    return key < _UNSILENCED


def ranked(now: int, chosen: FleetFilter, order: FleetOrder) -> Select[Any]:
    """Return the query of deployments' names, state keys and ordering values.

    The key's order is the list's: not silenced, then the worst state, then the earliest time since when a replica is in
    it.

    Args:
        now: milliseconds since the epoch.
        chosen: which deployments.
        order: what ``value`` is.
    """
    rank = case(RANKS, value=replica_facts.c.state, else_=RANKS["unknown"])
    stale = RANKS["stale"]
    since = case((_is_stale(now, rank), beats.c.seen_ms + beats.c.ttl_ms), else_=replica_facts.c.since_ms)
    shown = case((_is_stale(now, rank), stale), else_=rank)
    worst = func.max(shown * _big(SPAN) + (_big(SPAN) - since))
    silenced = replica_facts.c.name.in_(_silenced(now))
    key = case((silenced, worst), else_=worst + _big(_UNSILENCED)).label("key")
    same = and_(beats.c.name == replica_facts.c.name, beats.c.replica == replica_facts.c.replica)
    query = select(replica_facts.c.name, key, _value(order).label("value")).join(beats, same)
    return query.where(*_conditions(now, chosen)).group_by(replica_facts.c.name)


def key_in_states(key: Any, states: Iterable[State]) -> ColumnElement[bool]:
    """Return an SQL condition: the key's state is any of these."""
    spans = ((offset + RANKS[state] * SPAN) for state in states for offset in (0, _UNSILENCED))
    return or_(*(key.between(start + 1, start + SPAN) for start in spans))


def _big(number: int) -> Any:
    return literal(number, BigInteger)


def _is_stale(now: int, rank: Any) -> Any:
    return and_(is_silent(now), rank < RANKS["stale"])


def _silenced(now: int) -> Any:
    return select(deployments.c.name).where(deployments.c.silenced_until_ms > now)


def _value(order: FleetOrder) -> Any:
    """Return the expression that orders deployments, where it is none of the key and the name."""
    if order.by == "seen":
        return func.max(beats.c.seen_ms)
    if order.by in COLUMNS:
        return func.coalesce(func.min(replica_facts.c[COLUMNS[order.by]]), "")
    if order.by in ("owner", "label"):
        return func.coalesce(func.min(_of_deployment(order)), "")
    return func.count()


def _of_deployment(order: FleetOrder) -> Any:
    if order.by == "owner":
        named = select(deployments.c.owner).where(deployments.c.name == replica_facts.c.name)
    else:
        is_label = deployment_labels.c.label == order.label
        named = select(deployment_labels.c.value).where(deployment_labels.c.name == replica_facts.c.name, is_label)
    return named.correlate(replica_facts).scalar_subquery()


def _conditions(now: int, chosen: FleetFilter) -> list[Any]:
    name = replica_facts.c.name
    conditions: list[Any] = [has_part(name, chosen.part)]
    if chosen.facts:
        matching = [_has_any(field, values) for field, values in chosen.facts]
        other = replica_facts.alias("matching")
        renamed = [condition(other) for condition in matching]
        conditions.append(name.in_(select(other.c.name).where(*renamed)))
    for label, value in chosen.labels:
        is_value = true() if value is None else _is(deployment_labels.c.value, value)
        is_labelled = select(deployment_labels.c.name).where(_is(deployment_labels.c.label, label), is_value)
        conditions.append(name.in_(is_labelled))
    if chosen.owners:
        is_owned = or_(*(_is(deployments.c.owner, owner) for owner in chosen.owners))
        conditions.append(name.in_(select(deployments.c.name).where(is_owned)))
    if chosen.silenced is not None:
        silenced = name.in_(_silenced(now))
        conditions.append(silenced if chosen.silenced else ~silenced)
    if chosen.incomplete is not None:
        incomplete = name.in_(_incomplete(now))
        conditions.append(incomplete if chosen.incomplete else ~incomplete)
    return conditions


def _incomplete(now: int) -> Any:
    """Return the names of deployments with an incomplete replica, as ``fleet.incomplete_replicas`` finds them."""
    number = replica_facts.c.replica - STAGE_STEP * func.coalesce(replica_facts.c.stage, 0)
    newest = (replicas.c.replaced_ms.desc(), replica_facts.c.replica)
    of_newest = func.first_value(replica_facts.c.stages).over(
        partition_by=(replica_facts.c.name, number), order_by=newest
    )
    silent = case((is_silent(now), 1), else_=0)
    columns = (replica_facts.c.name, replica_facts.c.stage, replica_facts.c.stages)
    reported = (
        select(*columns, number.label("number"), of_newest.label("of_newest"), silent.label("silent"))
        .join(replicas, SAME_FACTS)
        .join(beats, SAME_REPLICA)
        .subquery()
    )
    present = func.count(case((reported.c.stages == reported.c.of_newest, reported.c.stage)).distinct())
    missing = and_(func.max(reported.c.of_newest) > present, func.min(reported.c.silent) == 0)
    return select(reported.c.name).group_by(reported.c.name, reported.c.number).having(missing)


def _has_any(field: str, values: tuple[str, ...]) -> Any:
    """Return a function from the table to the condition that a replica has any of some values."""
    column = COLUMNS[field]

    def condition(table: Any) -> Any:
        return or_(*(_has(table.c[column], column in SEVERAL, value) for value in values))

    return condition


def _is(column: Any, value: str) -> Any:
    """Return an SQL condition: a column is a value."""
    return false() if "\0" in value else column == value  # PostgreSQL refuses it, and no stored value has it


def _has(column: Any, several: bool, value: str) -> Any:
    """Return an SQL condition: a column has a value, ignoring case."""
    if "\0" in value or "\n" in value:
        return false()  # no stored value has it
    begins, wanted = value.endswith("*"), value.removesuffix("*")
    if several:
        return column.icontains(f"\n{wanted}" if begins else f"\n{wanted}\n", autoescape=True)
    return column.istartswith(wanted, autoescape=True) if begins else func.lower(column) == func.lower(wanted)


def has_part(name: Any, part: str) -> Any:
    """Return an SQL condition: the name contains ``part``, ignoring case."""
    if "\0" in part:
        return false()  # PostgreSQL refuses it, and no name has it
    return func.lower(name).contains(part.lower(), autoescape=True) if part else true()
