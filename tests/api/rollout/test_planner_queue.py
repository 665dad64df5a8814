"""The queue of plans: bounded, and a job ends with its client."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from preshuffle.api.app import create_app
from preshuffle.api.rollout import Candidate, Plan
from preshuffle.api.rollout import planner as planner_module
from preshuffle.api.server import bind
from preshuffle.api.server.listen import config_of
from preshuffle.api.settings import Settings
from preshuffle.registry import Registry
from support.processes.machine import is_running

BODY = b'{"books": [{"a.yaml": "models: {}\\n"}]}'
REQUEST = (
    b"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
PIDS = "PLANNED_PIDS"


def never(_url: str, _now: Registry, _candidate: Candidate) -> Plan:
    """Write this process's id to a file, and plan until it is ended."""
    with open(os.environ[PIDS], "a") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(1)


@dataclass
class Running:
    """A service in this process, whose plans never end."""

    port: int
    pids: Path

    def ask(self) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", self.port))
        peer.sendall(REQUEST)
        return peer

    def planned(self) -> list[int]:
        return [int(line) for line in self.pids.read_text().split()] if self.pids.exists() else []


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(planner_module, "plan_in_child", never)
    monkeypatch.setenv(PIDS, str(tmp_path / "pids"))
    app = create_app(Settings(db=f"sqlite:///{tmp_path}/store.db"), Registry.default())
    with bind("127.0.0.1", 0) as listener:
        server = uvicorn.Server(config_of(app.state.front, listener, 10, 100))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield Running(listener.getsockname()[1], tmp_path / "pids")
        app.state.service.end_streams()
        server.should_exit = True
        thread.join(timeout=60)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_plan_ends_with_its_client_and_few_wait(running: Running) -> None:
    first = running.ask()
    until(lambda: len(running.planned()) == 1)
    waiting = [running.ask() for _ in range(planner_module.MAX_WAITING)]
    url = f"http://127.0.0.1:{running.port}"
    until(lambda: refused(url))
    assert httpx.get(f"{url}/healthz").status_code == 200
    for peer in waiting[:-1]:
        peer.close()
    first.close()
    until(lambda: not is_running(running.planned()[0]))
    until(lambda: len(running.planned()) == 2)  # the turn of the last one: the others have left
    waiting[-1].close()
    until(lambda: not is_running(running.planned()[1]))


def refused(url: str) -> bool:
    """Whether the queue is full; a request that would wait is not waited for."""
    try:
        answer = httpx.post(f"{url}/v1/plan", json={"aiter": "0.1.20"}, timeout=2)
    except httpx.ReadTimeout:
        return False
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    kind: str = answer.json()["type"]
    return kind == "urn:preshuffle:problem:busy"
