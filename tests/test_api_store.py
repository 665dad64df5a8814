"""The store: one file, all or nothing, and it refuses a file that is not its own without touching it."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from preshuffle.api.deployments import ReplicaReport
from preshuffle.api.errors import StoreError
from preshuffle.api.store import Store
from support.server import REPORT


def report(node: str = "n") -> ReplicaReport:
    return ReplicaReport.parse({**REPORT, "node": node})


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://db/x", "not a SQLite file"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite+aiosqlite:///x.db", "not a SQLite file"),
        ("sqlite:///x.db?mode=ro", "not a SQLite file"),
        ("store.db", "not a database URL"),
        ("", "not a database URL"),
    ],
)
def test_a_url_that_is_no_file_is_refused(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        Store(url)


def test_a_secret_in_a_url_is_not_repeated() -> None:
    with pytest.raises(StoreError) as error:
        Store("postgresql://me:geheim@db/x")
    assert "geheim" not in str(error.value)


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database\n" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt is not a SQLite database"):
        Store(f"sqlite:///{file}")
    assert file.read_text() == "not a database\n" * 100
    assert list(tmp_path.iterdir()) == [file]


def test_a_damaged_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    Store(f"sqlite:///{file}").create().close()
    broken = file.read_bytes()[:100] + b"\xff" * 5000
    file.write_bytes(broken)
    with pytest.raises(StoreError, match=r"store\.db is damaged"):
        Store(f"sqlite:///{file}")
    assert file.read_bytes() == broken


def test_a_database_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(StoreError, match="songs"):
        Store(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_newer_store_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    Store(f"sqlite:///{file}").create().close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE key = 'schema_version'")
    connection.close()
    with pytest.raises(StoreError, match="schema 99; this one knows 1"):
        Store(f"sqlite:///{file}")


@pytest.mark.parametrize("name", ["absent/store.db", "."])
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="folder"):
        Store(f"sqlite:///{tmp_path / name}")


def test_looking_at_a_new_file_does_not_create_it(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db")
    assert list(tmp_path.iterdir()) == []
    store.create()
    assert store.page(10) == ([], False)
    store.close()


def test_what_is_stored_is_there_for_the_next_one_who_opens_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    first = Store(url).create()
    receipt = first.put("a", 3, report())
    first.close()
    second = Store(url).create()
    deployment = second.get("a")
    second.close()
    assert deployment is not None
    assert deployment.revision == receipt.revision
    assert [(replica.replica, replica.report) for replica in deployment.replicas] == [(3, report())]


def test_a_refused_change_changes_nothing(tmp_path: Path) -> None:
    def refuse(_revision: int | None) -> None:
        raise LookupError

    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    before = store.put("a", 0, report())
    with pytest.raises(LookupError):
        store.put("a", 0, report("other"), refuse)
    with pytest.raises(LookupError):
        store.delete("a", precondition=refuse)
    deployment = store.get("a")
    store.close()
    assert deployment is not None
    assert (deployment.revision, deployment.replicas[0].report.node) == (before.revision, "n")


def test_many_who_write_at_once_all_succeed(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    with ThreadPoolExecutor(16) as pool:
        receipts = list(pool.map(lambda replica: store.put("a", replica, report(f"n{replica}")), range(64)))
    deployment = store.get("a")
    store.close()
    assert len({receipt.revision for receipt in receipts}) == 64
    assert deployment is not None
    assert [replica.report.node for replica in deployment.replicas] == [f"n{replica}" for replica in range(64)]


def test_a_store_that_someone_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preshuffle.api.sqlite.BUSY_MS", 50)
    store = Store(f"sqlite:///{tmp_path}/store.db").create()
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.put("a", 0, report())
    other.close()
    store.close()
