"""Stores of every earlier version open in this one; newer ones are refused; running replicas survive a migration."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text

from preshuffle.api.app import create_app
from preshuffle.api.cli import main
from preshuffle.api.settings import Settings
from preshuffle.api.store.migrate import newest
from preshuffle.api.store.store import Store
from preshuffle.api.upkeep.recheck import recheck
from preshuffle.registry import Registry
from support.service.old_stores import NAME, VERSIONS, make_store, old_store
from support.service.server import REPORT, Client
from support.service.stores import url_of

FIRST_ADDITIVE = "0003"
"""Before the first release the second step dropped a column; from here on, replicas of the version before go on."""


@pytest.mark.parametrize(
    ("version", "kind"), [*((version, "sqlite") for version in VERSIONS[:-1]), (VERSIONS[0], "postgresql")]
)
def test_a_store_of_an_earlier_version_opens_with_all_that_it_held(
    version: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = url_of(kind, tmp_path)
    make_store(url, version)
    assert main(["store", "check", "--db", url]) == 0
    assert f"1 deployments, 2 replicas, 0 changes; schema {version}; preshuffle serve" in capsys.readouterr().out
    with ThreadPoolExecutor(2) as pool:  # both replicas of the new version start at once
        stores = list(pool.map(lambda _: Store(url).create(), range(2)))
    first, second = (Client(create_app(Settings(db=url), Registry.default(), store)) for store in stores)
    shown = first.get(f"/v1/deployments/{NAME}").json()
    assert (shown["verdict"], [one["replica"] for one in shown["replicas"]]) == ("ok", [0, 3])
    assert second.put(f"/v1/deployments/{NAME}?replica=3", json={**REPORT, "node": "b"}).json()["revision"] > 7
    assert [one["name"] for one in first.get("/v1/deployments").json()["deployments"]] == [NAME]
    assert main(["store", "check", "--db", url, "--json"]) == 0
    assert '"status": "current"' in capsys.readouterr().out.replace('":"', '": "')
    for store in stores:
        store.close()


def test_stages_of_earlier_reports_are_listed_as_stages(tmp_path: Path) -> None:
    url = url_of("sqlite", tmp_path)
    key = {"name": NAME, "replica": 1024}
    facts = {**dict.fromkeys(("models", "archs", "engines", "sizes", "codes"), ""), "state": "ok", "since_ms": 1}
    rows: dict[str, list[dict[str, Any]]] = {
        "deployments": [{"name": NAME, "revision": 1, "created_ms": 1, "replaced_ms": 1}],
        "replicas": [
            {
                **key,
                "report": json.dumps({"groups": [], "pipeline": {"stage": 1, "stages": 2}}, separators=(",", ":")),
                "created_ms": 1,
                "replaced_ms": 1,
            }
        ],
        "replica_facts": [{**key, **facts}],
        "beats": [{**key, "seen_ms": 1, "silent": False}],
    }
    old_store(url, "0006", rows)
    store = Store(url).create()
    client = Client(create_app(Settings(db=url), Registry.default(), store))
    (listed,) = client.get("/v1/deployments").json()["deployments"]
    assert listed["pipelines"] == {"1024": {"stage": 1, "stages": 2}}
    assert listed["incomplete"] == [{"replica": 0, "stages": 2, "missing": [0]}]
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_older_program_refuses_a_newer_store_with_one_clear_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = url_of(kind, tmp_path)
    Store(url).create().close()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE preshuffle_version SET version_num = '0099'"))
    engine.dispose()
    for command in (["serve", "--port", "0"], ["store", "check"]):
        assert main([*command, "--db", url]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"was written by a newer preshuffle (schema 0099; this one knows up to {newest()})" in line


def test_what_a_replica_of_the_version_before_stores_meanwhile_is_shown_and_judged(database: str) -> None:
    """A rolling upgrade: the first new replica has migrated, an old one still writes as its tables were."""
    store = Store(database).create()
    client = Client(create_app(Settings(db=database), Registry.default(), store))
    assert client.put("/v1/deployments/d", json=REPORT).status_code == 201
    with store.transaction(write=True) as connection:
        connection.execute(text("DELETE FROM replica_facts"))  # older versions know no such table
    assert recheck(store, Registry.default()) == 1
    with store.transaction() as connection:
        assert connection.execute(text("SELECT archs FROM replica_facts")).scalar_one() == "\ngfx950\n"
    assert recheck(store, Registry.default()) == 0
    assert client.delete("/v1/deployments/d").status_code == 204
    store.close()


def test_replicas_of_the_version_before_go_on_while_the_next_one_migrates(tmp_path: Path) -> None:
    """A step adds: tables, and columns that an INSERT may leave out. Nothing that an older program reads goes."""
    columns_of: dict[str, dict[str, dict[str, bool]]] = {}
    for version in VERSIONS:
        url = f"sqlite:///{tmp_path}/{version}.db"
        make_store(url, version)
        engine = create_engine(url)
        found = inspect(engine)
        columns_of[version] = {
            table: {
                column["name"]: column["nullable"] or column["default"] is not None
                for column in found.get_columns(table)
            }
            for table in found.get_table_names()
        }
        engine.dispose()
    for before, after in pairwise(VERSIONS):
        if after < FIRST_ADDITIVE:
            continue
        for table, columns in columns_of[before].items():
            later = columns_of[after].get(table, {})
            assert columns.keys() <= later.keys(), f"step {after} takes columns of {table} away"
            must = {name for name, optional in later.items() if not optional} - columns.keys()
            assert not must, f"step {after}: an older program's INSERT into {table} fails without {must}"
