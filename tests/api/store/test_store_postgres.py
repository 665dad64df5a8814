"""PostgreSQL store: refused databases, no password in messages, a full disk, a server that hangs."""

import time

import pytest
from sqlalchemy import create_engine, make_url, text

from preshuffle.api.errors import StoreError, StoreFullError
from preshuffle.api.store import postgres
from preshuffle.api.store.store import Store
from support.service.postgres import new_database, small_tablespace
from support.service.proxy import Proxy
from support.service.stores import put, report


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_an_unreachable_server_is_reported_without_the_password(scheme: str) -> None:
    with pytest.raises(StoreError, match=r"postgresql://127\.0\.0\.1:9/x cannot be used: .*refused") as error:
        Store(f"{scheme}://me:geheim@127.0.0.1:9/x?connect_timeout=2")
    assert "geheim" not in str(error.value)


def test_another_driver_is_refused() -> None:
    with pytest.raises(StoreError, match="valid: sqlite:///PATH"):
        Store("postgresql+asyncpg://db/x")


def test_a_missing_database_is_reported() -> None:
    with pytest.raises(StoreError, match="does not exist"):
        Store(new_database() + "_absent")


def test_a_database_of_something_else_is_left_unchanged() -> None:
    url = new_database()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE songs (title TEXT)"))
    with pytest.raises(StoreError, match=r"something else \(tables: songs\)"):
        Store(url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar() == 1
    engine.dispose()


def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    url = make_url(new_database())
    with Proxy(url.port or 0) as proxy:
        store = Store(url.set(port=proxy.port).render_as_string(hide_password=False)).create()
        put(store, "a")
        proxy.hang()
        with monkeypatch.context() as patch:  # a busy server may need more for an answer
            patch.setattr(postgres, "ANSWER_S", 1.0)
            for _ in range(2):  # a connection that was open, and a new one
                started = time.monotonic()
                with pytest.raises(StoreError, match="does not answer"):
                    put(store, "b")
                assert time.monotonic() - started < 20
        proxy.mend()
        put(store, "c")
        assert [deployment.name for deployment in store.page(5)[0]] == ["a", "c"]
        store.close()


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_room_is_used_again() -> None:
    reported = report(
        "x" * 256, groups=[{"layers": "0", "observation": {"query": {"model": "m" * 512, "arch": "gfx950"}}}]
    )
    done: list[str] = []
    with small_tablespace() as (url, ballast):
        store = Store(url).create()

        def put_many() -> None:
            for number in range(20_000):
                put(store, f"d{number:05}", 0, reported)
                done.append(f"d{number:05}")

        with pytest.raises(StoreFullError, match="its disk is full"):
            put_many()
        assert done
        assert sum(store.tally().values()) == len(done)
        ballast.unlink()
        put(store, "after")
        assert sum(store.tally().values()) == len(done) + 1
        store.close()
