"""Connections of a store: none stays open once it is closed or dropped, whichever thread used it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import anyio
import pytest
from anyio import to_thread
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

from preshuffle.api.app import create_app
from preshuffle.api.errors import StoreError
from preshuffle.api.settings import Settings
from preshuffle.api.store import Store
from preshuffle.registry import Registry
from support.service.server import Client
from support.service.stores import put, url_of


class Opened:
    """Counts connections that are open, of every pool."""

    def __init__(self) -> None:
        self.ids: set[int] = set()

    def connect(self, connection: object, _record: object) -> None:
        self.ids.add(id(connection))

    def close(self, connection: object, _record: object) -> None:
        self.ids.discard(id(connection))


@pytest.fixture
def opened() -> Iterator[Opened]:
    counted = Opened()
    event.listen(Pool, "connect", counted.connect)
    event.listen(Pool, "close", counted.close)
    yield counted
    event.remove(Pool, "connect", counted.connect)
    event.remove(Pool, "close", counted.close)


def read_in_threads(store: Store, threads: int) -> None:
    """Use a connection in each of several threads at once."""
    together = Barrier(threads)

    def read() -> None:
        with store.transaction() as connection:
            together.wait(60)
            connection.execute(text("SELECT 1"))

    with ThreadPoolExecutor(threads) as pool:
        for one in [pool.submit(read) for _ in range(threads)]:
            one.result()


def test_closing_closes_the_connections_of_ended_threads(database: str, opened: Opened) -> None:
    store = Store(database).create()
    read_in_threads(store, 4)
    assert len(opened.ids) == 4
    store.close()
    assert opened.ids == set()


def test_a_connection_in_use_is_closed_when_it_comes_back(database: str, opened: Opened) -> None:
    store = Store(database).create()
    used, closed = Event(), Event()

    def write() -> None:
        with store.transaction(write=True) as connection:
            used.set()
            assert closed.wait(60)
            connection.execute(text("DELETE FROM replicas"))

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(write)
        assert used.wait(60)
        store.close()
        assert len(opened.ids) == 1
        closed.set()
        late.result()
    assert opened.ids == set()


def test_a_thread_that_comes_after_the_end_leaves_no_connection(database: str, opened: Opened) -> None:
    store = Store(database).create()
    put(store, "a")
    store.close()
    assert store.get("a") is not None
    assert opened.ids == set()


def test_a_leader_that_ends_after_the_store_gives_its_lock_back(database: str, opened: Opened) -> None:
    store = Store(database).create()
    with store.leadership() as leads:
        assert leads
        store.close()
    assert opened.ids == set()
    with store.leadership() as leads:
        assert leads


def test_a_store_that_is_dropped_leaves_no_connection(database: str, opened: Opened) -> None:
    store = Store(database).create()
    read_in_threads(store, 2)
    assert opened.ids
    del store
    gc.collect()
    assert opened.ids == set()


def test_a_service_that_shuts_down_leaves_no_connection(tmp_path: Path, opened: Opened) -> None:
    app = create_app(Settings(db=url_of("sqlite", tmp_path)), Registry.default())
    interval = sys.getswitchinterval()

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await to_thread.run_sync(Client(app).get, "/readyz")
            assert opened.ids

    try:
        anyio.run(serve)
    finally:
        sys.setswitchinterval(interval)  # the service's own is meant for a process that serves
    assert opened.ids == set()


def test_a_store_that_cannot_be_made_is_closed(tmp_path: Path, opened: Opened) -> None:
    url = url_of("sqlite", tmp_path)
    store = Store(url)  # before another one, of a newer version, is there
    newer = Store(url).create()
    with newer.transaction(write=True) as connection:
        connection.execute(text("UPDATE preshuffle_version SET version_num = '9999'"))
    newer.close()
    with pytest.raises(StoreError, match="newer preshuffle"):
        store.create()
    assert opened.ids == set()
