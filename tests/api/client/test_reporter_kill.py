"""Service and engines are killed while they report: every report arrives exactly once, and none is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from preshuffle.api.client import Reporter, ServiceSettings
from preshuffle.registry import Observation
from support.processes.machine import free_port
from support.service.recorder import RecordingService
from support.service.server import OBSERVATION, Server, environment, running_server

LAYERS = {0: Observation.parse(OBSERVATION)}
NAME = "prod"


def settings(port: int, folder: Path) -> ServiceSettings:
    return ServiceSettings(
        url=f"http://127.0.0.1:{port}", deployment=NAME, spool=str(folder / "spool"), timeout_s=60, goodbye=False
    )


def arrivals(server: Server) -> list[int]:
    """Return the replicas of all reports in the history, the oldest first; it holds a deployment's last 1,000 rows."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, int] = {}
    while True:
        page = httpx.get(f"{server.url}/v1/deployments/{NAME}/history", params={"limit": 500, **cursor}).json()
        found += page["events"]
        if page["next"] is None:
            return [event["replica"] for event in reversed(found) if event["action"] == "report"]
        cursor = {"cursor": page["next"]}


def check_arrivals(folder: Path, reports: int, kills: int) -> None:
    """Report replicas while the service is killed again and again; check that each report arrived once, in order."""
    port = free_port()
    reporter = Reporter(settings=settings(port, folder))
    options = (folder / "store.db", "--port", str(port))
    for kill in range(kills):
        with running_server(*options, stderr=folder / "log") as server:
            for replica in range(reports * kill // kills, reports * (kill + 1) // kills):
                reporter.report(LAYERS, replica=replica)
            while reporter.stats.delivered < reports * (2 * kill + 1) // (2 * kills):
                time.sleep(0.001)
            server.kill()
    with running_server(*options, stderr=folder / "log") as server:
        assert reporter.flush(120)
        arrived = arrivals(server)
        stored = httpx.get(f"{server.url}/v1/deployments/{NAME}").json()
    stats = reporter.stats
    reporter.close()
    assert [one["replica"] for one in stored["replicas"]] == list(range(reports))
    assert stored["revision"] == reports  # a report that arrived twice as another one would have raised it again
    assert arrived == list(range(reports))[-len(arrived) :]
    assert len(arrived) > reports // 2
    assert (stats.waiting, stats.dropped, stats.refused, stats.superseded, stats.corrupted) == (0, 0, 0, 0, 0)
    assert stats.delivered == reports
    assert stats.failures >= kills - 1


def test_every_report_arrives_once_though_the_service_is_killed(tmp_path: Path) -> None:
    check_arrivals(tmp_path, reports=60, kills=1)


@pytest.mark.slow
def test_a_thousand_reports_arrive_once_though_the_service_is_killed_ten_times(tmp_path: Path) -> None:
    check_arrivals(tmp_path, reports=1000, kills=10)


ENGINE = f"""
import time
from preshuffle.api.client import Reporter
from preshuffle.registry import Observation
reporter = Reporter()
for replica in range(20):
    reporter.report({{0: Observation.parse({OBSERVATION!r})}}, replica=replica)
while reporter.stats.waiting < 20 or not reporter.stats.failures:
    time.sleep(0.001)
print("spooled", flush=True)
time.sleep(600)
"""


def test_an_engine_that_was_killed_delivers_its_reports_at_its_next_start(tmp_path: Path) -> None:
    port = free_port()
    named = environment(server=f"http://127.0.0.1:{port}", service_deployment=NAME, service_spool=f"{tmp_path}/spool")
    with ExitStack() as stack:
        engine = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", ENGINE], env=named, stdout=subprocess.PIPE, text=True)
        )
        assert engine.stdout is not None
        assert engine.stdout.readline() == "spooled\n"
        engine.send_signal(signal.SIGKILL)
    (tmp_path / "spool" / f"{NAME}@0" / "7.report").write_bytes(b"half of a re")
    service = RecordingService()
    with Reporter(settings=settings(port, tmp_path), transport=service.transport) as reporter:
        assert reporter.flush(120)
        assert reporter.stats.corrupted == 1
    arrived = [replica for method, replica in service.requests if method == "PUT"]
    assert arrived == [number for number in range(20) if number != 7]
    assert Counter(path.name for path in (tmp_path / "spool" / f"{NAME}@0").iterdir()) == {"lock": 1}
