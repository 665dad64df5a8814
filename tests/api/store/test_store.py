"""Store on both databases: changes are atomic, acknowledged writes persist."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, inspect, text, update

from preshuffle.api.errors import StoreError
from preshuffle.api.fleet.judgement import judge_name
from preshuffle.api.store.book_store import announce, announced_name
from preshuffle.api.store.migrate import migrations, newest
from preshuffle.api.store.retention import Retention, prune
from preshuffle.api.store.schema import history, metadata
from preshuffle.api.store.store import Store
from preshuffle.api.upkeep.liveness import update_liveness
from preshuffle.registry import Registry
from support.service.old_stores import old_store
from support.service.server import OBSERVATION
from support.service.stores import put, report, silence

WRONG = {**OBSERVATION, "applied": {"gate_mode": "separated", "tensors": {"w13_weight": {"layout": "gui16"}}}}


def groups(observation: object) -> list[dict[str, object]]:
    return [{"layers": "0-35", "observation": observation}]


def run(url: str, *statements: str) -> None:
    """Change a database behind the store's back."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_migrations_create_the_tables_of_the_schema(database: str) -> None:
    Store(database).create().close()
    engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    found = inspect(engine)
    for table in metadata.sorted_tables:
        columns = {column["name"]: column for column in found.get_columns(table.name)}
        assert list(columns) == [column.name for column in table.columns]
        assert {name for name, column in columns.items() if column["nullable"]} == {
            column.name for column in table.columns if column.nullable
        }
        assert found.get_pk_constraint(table.name)["constrained_columns"] == [key.name for key in table.primary_key]
        assert {index["name"] for index in found.get_indexes(table.name)} == {index.name for index in table.indexes}
    engine.dispose()


def test_a_store_of_the_first_version_is_migrated(database: str) -> None:
    times = {"created_ms": 5, "replaced_ms": 9}
    row = {"name": "kept", "replica": 3, "report": report().canonical(), "seen_ms": 1234567890123, **times}
    rows = {"deployments": [{"name": "kept", "revision": 1, **times}], "replicas": [row]}
    old_store(database, "0001", rows)
    run(
        database,
        "DROP TABLE preshuffle_version",
        "INSERT INTO meta (key, value) VALUES ('schema_version', 1)",
    )
    again = Store(database).create()
    deployment = again.get("kept")
    assert deployment is not None
    (replica,) = deployment.replicas
    assert (replica.replica, replica.report, replica.baseline) == (3, report(), None)
    assert replica.seen_at == datetime.fromtimestamp(1234567890.123, UTC)
    assert [(one.name, one.state) for one in again.page(5)[0]] == [("kept", "unknown")]
    put(again, "new")
    again.close()


def test_a_newer_store_is_left_unchanged(database: str) -> None:
    Store(database).create().close()
    run(database, "UPDATE preshuffle_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=f"newer preshuffle .schema 9999; this one knows up to {newest()}"):
        Store(database)


def test_migrations_form_one_line() -> None:
    assert [step.revision for step in migrations().walk_revisions()] == [
        f"{number:04}" for number in range(int(newest()), 0, -1)
    ]


def test_concurrent_starts_create_one_store(database: str) -> None:
    stores = [Store(database) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Store.create, stores))
    put(stores[0], "a")
    assert [len(one.page(5)[0]) for one in stores] == [1] * 4
    for one in stores:
        one.close()


def test_stored_reports_survive_reopening(database: str) -> None:
    first = Store(database).create()
    receipt = put(first, "a", 3)
    first.close()
    second = Store(database).create()
    deployment = second.get("a")
    second.close()
    assert deployment is not None
    assert deployment.revision == receipt.revision
    assert [(replica.replica, replica.report) for replica in deployment.replicas] == [(3, report())]


def test_a_refused_change_changes_nothing(store: Store) -> None:
    def refuse(_revision: int | None) -> None:
        raise LookupError

    before, counters = put(store, "a"), store.counters()
    with pytest.raises(LookupError):
        put(store, "a", reported=report("other"), precondition=refuse)
    with pytest.raises(LookupError):
        store.delete("a", precondition=refuse)
    deployment = store.get("a")
    assert deployment is not None
    assert (deployment.revision, deployment.replicas[0].report.node) == (before.revision, "n")
    assert store.counters() == counters
    assert len(store.history(10).events) == 1


def test_concurrent_writers_all_succeed(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        receipts = list(pool.map(lambda replica: put(store, "a", replica, report(f"n{replica}")), range(64)))
        list(pool.map(lambda replica: store.beat([("a", replica), ("a", 63 - replica)]), range(64)))
        gone = list(pool.map(lambda replica: store.delete("a", replica), range(32)))
    deployment = store.get("a")
    assert len({receipt.revision for receipt in receipts}) == 64
    assert all(gone)
    assert deployment is not None
    assert [replica.report.node for replica in deployment.replicas] == [f"n{replica}" for replica in range(32, 64)]


def test_names_sort_equally_on_both_databases(store: Store) -> None:
    names = ["B", "a", "a-1", "a.1", "a1", "a_1", "Z", "z"]
    for name in reversed(names):
        put(store, name)
    first, more = store.page(5)
    rest, no_more = store.page(5, first[-1].name)
    assert [one.name for one in (*first, *rest)] == sorted(names)
    assert (more, no_more) == (True, False)


def test_heartbeats_of_unknown_replicas_are_ignored(store: Store) -> None:
    put(store, "a", 1)
    before = store.get("a")
    known = store.beat([("a", 1), ("a", 2), ("b", 1), ("a", 1)])
    assert list(known) == [("a", 1)]
    deployment = store.get("a")
    assert before is not None
    assert deployment is not None
    assert deployment.seen_at == known["a", 1].seen_at >= before.seen_at
    assert deployment.revision == before.revision


def test_staleness_is_a_state_and_recorded_in_history(store: Store) -> None:
    put(store, "quick", reported=report(ttl_s=3600))
    put(store, "slow", reported=report(ttl_s=1_000_000))
    put(store, "wrong", reported=report(ttl_s=3600, groups=groups(WRONG)))
    assert update_liveness(store) == 0
    assert store.tally()["mismatch"] == 1
    for name in ("quick", "slow", "wrong"):
        silence(store, name)
    assert store.tally()["stale"] == 1
    states = {one.name: one.state for one in store.page(5)[0]}
    assert states == {"quick": "stale", "slow": "ok", "wrong": "mismatch"}
    assert [one.name for one in store.page(5, states=["stale"])[0]] == ["quick"]
    assert update_liveness(store) == 2
    assert update_liveness(store) == 0
    assert len(store.history(10).events) == 5
    store.beat([("quick", 0)])
    assert update_liveness(store) == 1
    events = store.history(10, subject="quick").events
    assert [(event.action, event.state_before, event.state_after) for event in events] == [
        ("back", "stale", "ok"),
        ("silent", "ok", "stale"),
        ("report", None, "ok"),
    ]


def test_history_records_author_and_change(store: Store) -> None:
    put(store, "a", who="ann")
    put(store, "a", reported=report("m", groups=groups(WRONG)), who="bob")
    put(store, "b", 1, who="ann")
    store.delete("a", who="cid")
    events = store.history(10, subject="a").events
    assert [(event.who, event.action, event.verdict_before, event.verdict_after) for event in events] == [
        ("cid", "forget", "mismatch", None),
        ("bob", "report", "ok", "mismatch"),
        ("ann", "report", None, "ok"),
    ]
    changed = {change.field: (change.before, change.after) for change in events[1].changes}
    assert changed["node"] == ("n", "m")
    assert changed["groups.0.observation.applied.tensors.w13_weight.layout"] == ("sep16", "gui16")
    first = store.history(2)
    rest = store.history(2, before=first.next)
    assert [event.subject for event in (*first.events, *rest.events)] == ["a", "b", "a", "a"]
    assert rest.next is None
    assert store.history(5, since=datetime.now(UTC) + timedelta(minutes=1)).events == ()
    assert len(store.history(5, since=events[-1].at).events) == 4


def test_history_deletes_the_oldest_rows_of_a_subject(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preshuffle.api.store.history.MAX_PER_SUBJECT", 5)
    for number in range(12):
        put(store, "a", reported=report(f"n{number}"))
    put(store, "b")
    events = store.history(20, subject="a").events
    assert [event.changes[0].after for event in events] == [f"n{number}" for number in (11, 10, 9, 8, 7)]
    assert len(store.history(20, subject="b").events) == 1


def test_history_is_bounded_over_all_subjects(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preshuffle.api.store.retention._BATCH", 2)  # it goes a little at a time
    announce(store, Registry.default())
    for number in range(9):
        put(store, f"d{number}")
    assert prune(store, Retention(rows=1000, days=1)) == 0
    assert prune(store, Retention(rows=4)) == 5
    assert [event.subject for event in store.history(100).events] == ["d8", "d7", "d6", "d5", "registry"]
    with store.transaction(write=True) as connection:
        connection.execute(update(history).where(history.c.subject != "d8").values(at_ms=0))
    assert prune(store, Retention(rows=1000, days=1)) == 3
    assert [event.subject for event in store.history(100).events] == ["d8", "registry"]
    assert announced_name(store) == judge_name(Registry.default())  # else no service knows the latest registry


def test_a_deployment_called_registry_hides_no_book(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preshuffle.api.store.history.MAX_PER_SUBJECT", 3)
    announce(store, Registry.default())
    for number in range(5):
        put(store, "registry", reported=report(f"node-{number}"))
    assert [event.action for event in store.history(100).events] == ["report"] * 3 + ["book"]
    assert announced_name(store) == judge_name(Registry.default())
