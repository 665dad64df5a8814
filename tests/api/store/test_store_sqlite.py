"""SQLite store: foreign files are refused unchanged, a full disk loses nothing."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, update

from preshuffle.api.app import create_app
from preshuffle.api.errors import StoreError, StoreFullError
from preshuffle.api.fleet.judgement import judge_name
from preshuffle.api.settings import Settings
from preshuffle.api.store.schema import replicas
from preshuffle.api.store.store import Store
from preshuffle.api.upkeep.recheck import is_due, recheck
from preshuffle.registry import Registry
from preshuffle.registry.loading.load import load_book
from support.service.server import REPORT, Client
from support.service.stores import put, report


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://db/x", "is not supported"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite+aiosqlite:///x.db", "is not supported"),
        ("sqlite:///x.db?mode=ro", "not a SQLite file"),
        ("store.db", "not a database URL"),
        ("", "not a database URL"),
    ],
)
def test_an_unsupported_url_is_refused(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        Store(url)


def test_a_secret_in_a_url_is_not_repeated() -> None:
    with pytest.raises(StoreError) as error:
        Store("mysql://me:geheim@db/x")
    assert "geheim" not in str(error.value)


def test_a_file_that_is_no_database_is_left_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database\n" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt is not a SQLite database"):
        Store(f"sqlite:///{file}")
    assert file.read_text() == "not a database\n" * 100
    assert list(tmp_path.iterdir()) == [file]


def test_a_damaged_database_is_left_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    Store(f"sqlite:///{file}").create().close()
    broken = file.read_bytes()[:100] + b"\xff" * 5000
    file.write_bytes(broken)
    with pytest.raises(StoreError, match=r"store\.db is damaged"):
        Store(f"sqlite:///{file}")
    assert file.read_bytes() == broken


@pytest.mark.parametrize("table", ["songs", "meta"])
def test_a_database_of_something_else_is_left_unchanged(tmp_path: Path, table: str) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute(f"CREATE TABLE {table} (title TEXT)")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(StoreError, match=rf"something else \(tables: {table}\)"):
        Store(f"sqlite:///{file}")
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["absent/store.db", "."])
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="folder"):
        Store(f"sqlite:///{tmp_path / name}")


def test_opening_a_new_file_does_not_create_it(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db")
    assert list(tmp_path.iterdir()) == []
    store.create()
    assert store.page(10) == ([], False)
    store.close()


def test_a_deleted_file_is_reported(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    (tmp_path / "store.db").unlink()
    with pytest.raises(StoreError, match="does not exist"):
        put(store, "a")
    store.close()


def replace(file: Path, new: Path) -> None:
    new.replace(file)
    for journal in ("-wal", "-shm"):
        file.with_name(file.name + journal).unlink(missing_ok=True)


def test_a_replaced_file_is_noticed_before_anything_is_acknowledged(tmp_path: Path) -> None:
    file, other, old = tmp_path / "store.db", tmp_path / "other.db", tmp_path / "old.db"
    Store(f"sqlite:///{other}").create().close()
    store = Store(f"sqlite:///{file}").create()
    client = Client(create_app(Settings(), Registry.default(), store).state.front)
    assert client.put("/v1/deployments/a", json=REPORT).status_code == 201
    os.link(file, old)
    replace(file, other)
    for answer in (
        client.put("/v1/deployments/b", json=REPORT),
        client.delete("/v1/deployments/a"),
        client.post("/v1/deployments/a/heartbeat"),
        client.get("/readyz"),
        client.get("/v1/deployments"),
    ):
        assert answer.status_code == 503
        assert "was replaced by another file" in answer.json()["detail"]
        assert "restarted" in answer.json()["detail"]
    assert client.get("/healthz").status_code == 200
    with closing(sqlite3.connect(file)) as reader:
        assert reader.execute("SELECT count(*) FROM replicas").fetchone() == (0,)
    old.replace(file)  # back again
    assert client.get("/readyz").status_code == 200
    assert client.put("/v1/deployments/a", json={**REPORT, "node": "b"}).status_code == 200
    store.close()


def test_a_file_that_is_replaced_during_a_write_is_noticed(tmp_path: Path) -> None:
    file, other = tmp_path / "store.db", tmp_path / "other.db"
    Store(f"sqlite:///{other}").create().close()
    store = Store(f"sqlite:///{file}").create()

    def meanwhile(_revision: int | None) -> None:
        other.replace(file)

    with pytest.raises(StoreError, match="was replaced"):
        put(store, "a", precondition=meanwhile)
    store.close()


def test_a_locked_store_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preshuffle.api.store.sqlite.BUSY_MS", 50)
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        put(store, "a")
    other.close()
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB; where none can be mounted, a file that SQLite lets grow to 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("only root can mount a small disk here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(store: Store) -> list[str]:
    """Put deployments until no more fit; return the names of those that were acknowledged."""
    done: list[str] = []
    reported = report(
        "x" * 256, groups=[{"layers": "0", "observation": {"query": {"model": "m" * 512, "arch": "gfx950"}}}]
    )

    def put_many() -> None:
        for number in range(5000):
            put(store, f"d{number:04}", 0, reported)
            done.append(f"d{number:04}")

    with pytest.raises(StoreFullError, match="its disk is full"):
        put_many()
    return done


def names(store: Store) -> list[str]:
    return [deployment.name for deployment in store.page(500)[0]]


def test_a_full_disk_loses_nothing_and_room_is_used_again(small_disk: Path) -> None:
    store = Store(f"sqlite:///{small_disk}/store.db").create()
    (small_disk / "ballast").write_bytes(bytes(400_000))
    done = fill(store)
    assert done
    assert names(store) == done
    (small_disk / "ballast").unlink()
    put(store, "after")
    store.close()
    again = Store(f"sqlite:///{small_disk}/store.db").create()
    assert names(again) == ["after", *done]
    again.close()


def test_a_full_disk_is_freed_over_http(small_disk: Path) -> None:
    store = Store(f"sqlite:///{small_disk}/store.db").create()
    client = Client(create_app(Settings(), Registry.default(), store).state.front)
    (small_disk / "ballast").write_bytes(bytes(300_000))
    for round_ in range(3):
        done = fill(store)
        with suppress(OSError), (small_disk / f"more{round_}").open("wb") as file:
            while file.write(bytes(4096)):
                file.flush()
        assert client.put("/v1/deployments/none", json=REPORT).status_code == 507
        for name in done[: len(done) // 2 + 1]:
            answer = client.delete(f"/v1/deployments/{name}")
            assert answer.status_code == 204, answer.text
        assert client.get("/v1/deployments").status_code == 200
        (small_disk / f"more{round_}").unlink()
        assert client.put("/v1/deployments/again", json=REPORT).status_code in (200, 201)
        for name in names(store):
            store.delete(name)
    store.close()
    assert not (small_disk / "store.db-reserve").exists()


def test_a_database_that_may_not_grow_loses_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    Store(url).create().close()

    def limit(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA max_page_count=120").close()

    event.listen(Engine, "connect", limit)
    store = Store(url)
    done = fill(store)
    assert done
    assert names(store) == done
    assert sum(store.tally().values()) == len(done)
    store.close()
    event.remove(Engine, "connect", limit)


def test_rows_are_found_by_index(tmp_path: Path) -> None:
    """What heartbeats, and checks after a change of the registry, ask of a fleet of ten thousand."""
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    for number in range(4):
        put(store, f"d{number}", number)
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        asked.append((statement, parameters[0] if many else parameters))

    event.listen(Engine, "before_cursor_execute", note)
    assert len(store.beat([("d0", 0), ("d1", 1), ("d1", 0), ("none", 0)])) == 2
    assert not is_due(store, judge_name(Registry.default()))
    assert recheck(store, Registry(load_book(texts=[{"other.yaml": "models: {}\n"}]))) == 0
    with store.transaction(write=True) as connection:
        connection.execute(update(replicas).values(judged_by=""))
    assert recheck(store, Registry.default()) == 4
    event.remove(Engine, "before_cursor_execute", note)
    store.close()
    whole = "UPDATE replicas SET judged_by=?"
    once_a_run = "WHERE replica_facts.name IS NULL"  # replicas that an older version stored: both indexes, side by side
    with closing(sqlite3.connect(tmp_path / "store.db")) as reader:
        for statement, parameters in asked:
            if statement.startswith(("SELECT", "UPDATE")) and statement != whole and once_a_run not in statement:
                plan = reader.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
                assert not any(row[3].startswith("SCAN") for row in plan), (statement, plan)
