"""The service is killed in the middle of writes: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

from pathlib import Path

import pytest

from preshuffle.api.store.store import Store
from support.processes.kill_service import Writers, assert_nothing_is_lost
from support.service.server import running_server
from support.service.stores import url_of


def kill_and_look(url: str, writes: int, acknowledged: int) -> None:
    with running_server(url) as server:
        writers = Writers(server, writes)
        writers.kill_after(acknowledged)
    assert len(writers.acknowledged) >= acknowledged
    store = Store(url).create()
    assert_nothing_is_lost(store, writers)
    store.close()


def test_a_kill_loses_nothing_that_was_acknowledged(database: str) -> None:
    kill_and_look(database, 200, 40)


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(20))
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kills_in_the_middle_of_a_thousand_writes(kind: str, round_: int, tmp_path: Path) -> None:
    kill_and_look(url_of(kind, tmp_path), 1000, 25 + 45 * round_)
