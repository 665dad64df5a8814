"""Backup, restore and rollback of a store as an operator does them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from preshuffle.api.cli import main
from preshuffle.api.store.migrate import newest
from preshuffle.api.store.store import Store
from support.service.old_stores import NAME, VERSIONS, make_store
from support.service.server import REPORT, running_server
from support.service.stores import put, url_of


def names(url: str) -> list[str]:
    store = Store(url).create()
    found = [one.name for one in store.page(100)[0]]
    store.close()
    return found


def refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which a command refuses."""
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_backup_of_a_running_service_is_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, copy = tmp_path / "store.db", tmp_path / "copy.db"
    url = f"sqlite:///{store}"
    with running_server(store) as server:
        for name in ("a", "b"):
            assert httpx.put(f"{server.url}/v1/deployments/{name}", json=REPORT).status_code == 201
        assert main(["store", "backup", str(copy), "--db", url, "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["store"], facts["deployments"], facts["status"]) == (str(copy), 2, "current")
        assert httpx.put(f"{server.url}/v1/deployments/c", json=REPORT).status_code == 201
        assert "exists already" in refused(["store", "backup", str(copy), "--db", url], capsys)
        assert "in use by a service; stop it first" in refused(["store", "restore", str(copy), "--db", url], capsys)
        assert httpx.put(f"{server.url}/v1/deployments/d", json=REPORT).status_code == 201
        server.kill()  # its journal stays beside the file
    assert main(["store", "restore", str(copy), "--db", url]) == 0
    assert capsys.readouterr().out.endswith(f"is kept as {store}.replaced\n")
    assert names(url) == ["a", "b"]
    assert names(f"sqlite:///{store}.replaced") == ["a", "b", "c", "d"]
    assert "exists already" in refused(["store", "restore", str(copy), "--db", url], capsys)
    assert {file.name for file in tmp_path.iterdir()} == {"store.db", "store.db.replaced", "copy.db"}


def test_rollback_is_the_restored_backup_from_before_the_upgrade(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, copy = tmp_path / "store.db", tmp_path / "before.db"
    url, version = f"sqlite:///{store}", VERSIONS[-2]
    make_store(url, version)
    assert main(["store", "backup", str(copy), "--db", url]) == 0
    upgraded = Store(url).create()
    put(upgraded, "new")
    upgraded.close()
    assert main(["store", "restore", str(copy), "--db", url]) == 0
    assert main(["store", "check", "--db", url]) == 0
    assert f"schema {version}; preshuffle serve migrates it to {newest()}" in capsys.readouterr().out.splitlines()[-1]
    assert names(url) == [NAME]


def test_what_is_no_backup_is_refused_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, bad = tmp_path / "store.db", tmp_path / "bad.db"
    url = f"sqlite:///{store}"
    made = Store(url).create()
    put(made, "a")
    made.close()
    odd = tmp_path / "50%20?.db"
    assert main(["store", "backup", str(odd), "--db", url]) == 0
    assert main(["store", "restore", str(odd), "--db", f"sqlite:///{tmp_path}/other.db"]) == 0
    before = store.read_bytes()

    def says(words: str) -> None:
        assert words in refused(["store", "restore", str(bad), "--db", url], capsys)
        assert store.read_bytes() == before
        assert not store.with_name("store.db.replaced").exists()

    says("does not exist")
    bad.write_text("hello")
    says("not a SQLite database")
    shutil.copy(store, bad)
    with bad.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    says("damaged")
    shutil.copy(store, bad)
    engine = create_engine(f"sqlite:///{bad}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE preshuffle_version SET version_num = '0099'"))
    engine.dispose()
    says("newer preshuffle (schema 0099")
    assert "does not exist" in refused(["store", "restore", f"{store}?mode=ro", "--db", url], capsys)
    for wrong in ("postgresql://u:s3cret@h:x/y", "nonsense"):
        said = refused(["store", "backup", str(bad), "--db", wrong], capsys)
        assert "is not a database URL" in said
        assert "s3cret" not in said
    assert "cannot be written" in refused(["store", "backup", f"{tmp_path}/absent/x.db", "--db", url], capsys)
    assert "does not exist" in refused(["store", "check", "--db", f"sqlite:///{tmp_path}/none.db"], capsys)
    assert not (tmp_path / "none.db").exists()


def test_postgresql_is_dumped_and_restored_with_its_own_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, other, dump = url_of("postgresql", tmp_path), url_of("postgresql", tmp_path), tmp_path / "store.dump"
    assert f"pg_dump --format=custom --file {dump}" in refused(["store", "backup", str(dump), "--db", url], capsys)
    if shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed")
    dump_command: list[str | Path] = ["pg_dump", "--format=custom", "--file", dump, url]
    restore: list[str | Path] = ["pg_restore", "--no-owner", "--single-transaction", "--dbname"]
    page = (Path(__file__).parents[3] / "docs" / "backup.md").read_text()
    assert " ".join(map(str, restore)) in page
    empty = ["psql", "--quiet", "--command", "DROP SCHEMA public CASCADE", "--command", "CREATE SCHEMA public"]
    assert f'psql --command "{empty[3]}" --command "{empty[5]}" URL' in page

    make_store(url, VERSIONS[-2])
    subprocess.run(dump_command, check=True)
    first, second = Store(url).create(), Store(url).create()  # two replicas of the new version
    put(first, "b")
    for store in (first, second):
        store.close()
    subprocess.run([*empty, url], check=True, stderr=subprocess.DEVNULL)  # rollback: it names what it drops
    subprocess.run([*restore, url, dump], check=True)
    assert main(["store", "check", "--db", url]) == 0
    assert f"schema {VERSIONS[-2]}; preshuffle serve migrates it" in capsys.readouterr().out
    assert names(url) == [NAME]

    dump.unlink()
    first, second = Store(url).create(), Store(url).create()
    subprocess.run(dump_command, check=True)  # while both run
    put(second, "later")
    subprocess.run([*restore, other, dump], check=True)
    assert names(other) == [NAME]
    assert names(url) == [NAME, "later"]
    for store in (first, second):
        store.close()
    restored = Store(other).create()
    assert put(restored, "new").revision > 7
    restored.close()
